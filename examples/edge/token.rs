//! Control tokens: how a new one reaches its owner, and the offline commands.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use distedge::catalog::Catalog;
use distedge::clock::SystemClock;
use distedge::edge::new_token;
use distedge::error::{Error, ErrorKind, Result};
use distedge::meta::RedbStore;
use distedge::name::Tenant;
use distedge::secret::Secret;

/// Where a new token goes: standard output, or a file that only its owner can read.
#[derive(Debug)]
pub(crate) enum Destination {
    Shown,
    /// A file that is reserved before there is a token, so that no token is made in vain. An empty
    /// file is taken for one that an earlier try reserved.
    File {
        path: PathBuf,
        reserved: bool,
        made: bool,
    },
}

impl Destination {
    /// Standard output, or `file`, which is made unless something is in it already.
    pub(crate) fn prepare(file: Option<&Path>) -> Result<Destination> {
        let Some(path) = file else { return Ok(Destination::Shown) };
        let failed =
            |cause| Error::io(format_args!("the token file {} cannot be written", path.display()), cause);
        let (reserved, made) = match create(path) {
            Ok(()) => (true, true),
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
                let found = fs::metadata(path).map_err(failed)?;
                (found.is_file() && found.len() == 0, false)
            }
            Err(cause) => return Err(failed(cause)),
        };
        Ok(Destination::File { path: path.to_owned(), reserved, made })
    }

    /// Takes a reserved file away again, if nothing came of it.
    pub(crate) fn abandon(&self) {
        if let Destination::File { path, made: true, .. } = self {
            // It is empty; what cannot be removed is taken for reserved the next time.
            let _ = fs::remove_file(path);
        }
    }

    /// Hands over `token`; `what` names it.
    pub(crate) fn deliver(&self, what: &str, token: &Secret) -> Result<()> {
        let text = token
            .expose_str()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a token is text, and this one is not"))?;
        let (shown, note) = match self {
            Destination::File { path, reserved: true, .. } => {
                let wrote = write(path, text);
                wrote.map_err(|cause| Error::io(format_args!("writing {}", path.display()), cause))?;
                (None, format!("the {what} is in {}; only its hash is stored here", path.display()))
            }
            // What is in that file is not overwritten, and a token that nobody sees is worth nothing.
            Destination::File { path, reserved: false, .. } => {
                (Some(text), format!("({} exists and was left as it is) {NOTE}", path.display()))
            }
            Destination::Shown => (Some(text), NOTE.into()),
        };
        let mut out = io::stdout().lock();
        let told = match shown {
            Some(text) => writeln!(out, "{what}: {text}\n{note}"),
            None => writeln!(out, "{note}"),
        };
        told.and_then(|()| out.flush()).map_err(|cause| {
            Error::io(format_args!("the {what} cannot be shown, make another with `edge token new`"), cause)
        })
    }
}

const NOTE: &str = "This is the only time it is shown: the edge stores nothing but its hash.";

/// Makes a token in a data directory that no edge is using.
pub(crate) async fn add(data: &Path, tenant: Tenant, name: &str, to: &Destination) -> Result<()> {
    let label = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(label) {
        return Err(Error::invalid(format!(
            "{name:?} is not a token's name: 1 to 64 letters, digits, `-`, `.` and `_`"
        )));
    }
    let catalog = catalog(data, tenant).await?;
    if catalog.tokens().await?.iter().any(|known| known.name == name) {
        let message = format!("there is a token named {name} already");
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    let token = new_token(&catalog, name, &SystemClock).await?;
    to.deliver(&format!("token {name}"), &token)
}

/// Forgets a token of a data directory that no edge is using.
pub(crate) async fn remove(data: &Path, tenant: Tenant, name: &str) -> Result<()> {
    if !catalog(data, tenant).await?.remove_token(name).await? {
        return Err(Error::new(ErrorKind::NotFound, format!("there is no token named {name:?}")));
    }
    let mut out = io::stdout().lock();
    writeln!(out, "the token {name} is forgotten").map_err(|cause| Error::io("writing the answer", cause))
}

/// Lists the tokens of a data directory that no edge is using.
pub(crate) async fn list(data: &Path, tenant: Tenant) -> Result<()> {
    let tokens = catalog(data, tenant).await?.tokens().await?;
    let mut out = io::stdout().lock();
    for token in tokens {
        writeln!(out, "{}\t{}", token.name, token.created)
            .map_err(|cause| Error::io("writing the list", cause))?;
    }
    Ok(())
}

async fn catalog(data: &Path, tenant: Tenant) -> Result<Catalog> {
    let file = data.join("meta.redb");
    // Opening would make it: a mistyped directory must not become an edge.
    if !file.exists() {
        let message = format!("there is no edge in {}: {} is missing", data.display(), file.display());
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    Catalog::open(Arc::new(RedbStore::open(file)?), tenant).await
}

fn create(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}
