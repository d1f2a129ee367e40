//! What can go wrong in redb, and the sentence for it.

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::redb::{CommitError, DatabaseError, SetDurabilityError, StorageError, TableError, TransactionError};

use crate::error::{Error, ErrorKind, Result};

/// Why a transaction did not go through.
#[derive(Debug)]
pub(super) enum Failure {
    Database(::redb::Error),
    Other(Error),
}

macro_rules! from_redb {
    ($($cause:ty)*) => {$(
        impl From<$cause> for Failure {
            #[cold]
            fn from(cause: $cause) -> Failure {
                Failure::Database(cause.into())
            }
        }
    )*};
}

from_redb!(CommitError SetDurabilityError StorageError TableError TransactionError);

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Other(error)
    }
}

impl Failure {
    /// Whether redb refuses everything from here on.
    pub(super) fn breaks(&self) -> bool {
        matches!(self, Failure::Database(::redb::Error::Io(_) | ::redb::Error::PreviousIo))
    }

    /// Whether it has refused because of another operation.
    pub(super) fn is_of_an_earlier_error(&self) -> bool {
        matches!(self, Failure::Database(::redb::Error::PreviousIo))
    }

    #[cold]
    pub(super) fn into_error(self, name: &str, doing: &str) -> Error {
        let cause = match self {
            Failure::Database(cause) => cause,
            Failure::Other(error) => return error,
        };
        match cause {
            ::redb::Error::Io(cause) => io_failed(name, doing, cause),
            ::redb::Error::Corrupted(what) => corrupted(name, what),
            ::redb::Error::TableTypeMismatch { .. } | ::redb::Error::TableDoesNotExist(_) => {
                corrupted(name, cause)
            }
            ::redb::Error::PreviousIo => Error::new(
                ErrorKind::Io,
                format!("{doing} the metadata file {name}: another operation met an I/O error meanwhile"),
            ),
            ::redb::Error::LockPoisoned(_) => Error::new(
                ErrorKind::Corrupted,
                format!(
                    "{doing} the metadata file {name}: an earlier call found damage, open the store anew"
                ),
            ),
            cause => Error::new(ErrorKind::Internal, format!("{doing} the metadata file {name}: {cause}"))
                .with_source(cause),
        }
    }
}

#[cold]
pub(super) fn opening_failed(name: &str, cause: DatabaseError) -> Error {
    match cause {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => Error::new(
            ErrorKind::Conflict,
            format!("another process uses the metadata file {name}: stop it first"),
        ),
        DatabaseError::UpgradeRequired(version) => Error::new(
            ErrorKind::Unsupported,
            format!("the metadata file {name} has format version {version}, which this program cannot read"),
        ),
        DatabaseError::Storage(StorageError::Io(cause)) => io_failed(name, "opening", cause),
        DatabaseError::Storage(StorageError::Corrupted(what)) => corrupted(name, what),
        cause => corrupted(name, cause),
    }
}

#[cold]
pub(super) fn io_failed(name: &str, doing: &str, cause: io::Error) -> Error {
    match cause.kind() {
        // How redb reports a file that is not its own, or is cut short.
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => corrupted(name, cause),
        _ => Error::io(format_args!("{doing} the metadata file {name}"), cause),
    }
}

#[cold]
pub(super) fn corrupted(name: &str, what: impl fmt::Display) -> Error {
    Error::new(
        ErrorKind::Corrupted,
        format!("the metadata file {name} is damaged or no metadata file: {what}"),
    )
}

/// Runs `work`; a panic in it is damage found. redb checks much of a file but not all of it, and
/// meets the rest as a broken assumption.
pub(super) fn guarded<T>(name: &str, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // After a panic redb has poisoned its own locks, so no half-changed state is used again.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(panic) => Err(corrupted(name, panic_message(&*panic)).into()),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
