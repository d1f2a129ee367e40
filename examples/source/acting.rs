//! Who acts: the credentials of a command, the source they act in, and its log.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use distedge::access::Principal;
use distedge::audit::{AuditSink, LogOptions, TileLog};
use distedge::clock::{Clock as _, SystemClock};
use distedge::error::{Error, Result};
use distedge::secret::Secret;
use distedge::source::{Actor, Authority, Governance, Source};

use crate::keys::read_secret;

/// Who acts. Without any, the local operator does, as long as nobody else is known here.
#[derive(Args)]
pub(crate) struct Credentials {
    /// A file with the user token of who acts; `-` is standard input. DISTEDGE_SOURCE_TOKEN may hold the
    /// token itself.
    #[arg(long, global = true, env = "DISTEDGE_AUTH_FILE", value_name = "FILE")]
    auth_file: Option<PathBuf>,
    /// The local operator administers although people with tokens act here. The reason is recorded.
    #[arg(long, global = true, value_name = "REASON", conflicts_with = "auth_file")]
    break_glass: Option<String>,
}

impl Credentials {
    fn token(&self) -> Result<Option<Secret>> {
        if self.break_glass.is_some() {
            return Ok(None);
        }
        let text = match &self.auth_file {
            Some(file) => read_secret(file)?,
            None => match std::env::var("DISTEDGE_SOURCE_TOKEN") {
                Ok(text) => Secret::new(text),
                Err(std::env::VarError::NotPresent) => return Ok(None),
                Err(std::env::VarError::NotUnicode(_)) => {
                    return Err(Error::invalid("DISTEDGE_SOURCE_TOKEN is not text"));
                }
            },
        };
        Ok(Some(Secret::new(text.expose_str().unwrap_or_default().trim())))
    }
}

/// A source, open for one command.
pub(crate) struct Desk {
    source: Source,
    pub(crate) governance: Governance,
    authority: Authority,
    principal: Principal,
}

impl Desk {
    /// Takes a source that is open, and finds out who acts in it.
    pub(crate) async fn open(source: Source, data: &std::path::Path, by: &Credentials) -> Result<Desk> {
        let now = SystemClock.now();
        let governance = source.governance().await?;
        let principal = governance.principal(by.token()?.as_ref(), now)?;
        let profile = source.profile();
        let origin = format!("distedge-source/{}/{}", profile.project, profile.tenant);
        let log = TileLog::open(
            data.join("audit"),
            &origin,
            source.identity()?,
            Arc::new(SystemClock),
            LogOptions::default(),
        )?;
        let audit: Arc<dyn AuditSink> = Arc::new(log);
        let authority = governance.authority(audit, by.break_glass.as_deref(), now).await?;
        Ok(Desk { source, governance, authority, principal })
    }

    /// The source in the hands of who acts.
    pub(crate) fn actor(&self) -> Actor<'_> {
        self.source.acting_as(self.principal.clone(), &self.authority)
    }
}
