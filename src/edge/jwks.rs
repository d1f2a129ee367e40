//! An issuer's key set over the network.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use crate::auth::JwksSource;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Call, Transport, Verb};

/// A key set that a [`Transport`] brings.
pub struct RemoteJwks {
    transport: Box<dyn Transport>,
    path: String,
}

impl RemoteJwks {
    /// The key set at `path`, absolute and percent-encoded, behind `transport`. The transport's limits
    /// on time and length hold for it.
    pub fn new(transport: impl Transport, path: impl Into<String>) -> RemoteJwks {
        RemoteJwks { transport: Box::new(transport), path: path.into() }
    }

    /// The key set at `url`. The certificate authorities are the system's, or those in the PEM file
    /// `authorities`. The answer comes in time and is of reasonable length, or it is an error; a
    /// redirection is one.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for what is not an `https://` URL with a path. On a loopback address it
    /// may be `http://`: elsewhere whoever is on the way could put in keys of their own.
    #[cfg(feature = "client")]
    pub fn at(url: &str, authorities: Option<&std::path::Path>) -> Result<RemoteJwks> {
        use std::time::Duration;

        let (base, path) = split(url)?;
        let mut builder = crate::transport::HttpTransport::builder(base)
            .with_connect_timeout(Duration::from_secs(5))
            .with_answer_timeout(Duration::from_secs(5))
            .with_answer_limit(256 << 10);
        if let Some(authorities) = authorities {
            builder = builder.with_authorities(authorities);
        }
        Ok(RemoteJwks::new(builder.build()?, path))
    }
}

/// The part of a URL up to its path, and the path.
#[cfg(feature = "client")]
fn split(url: &str) -> Result<(&str, &str)> {
    use http::Uri;

    let bad = |why: &str| Error::invalid(format!("the URL of a key set {why}"));
    let uri: Uri = url.parse().map_err(|_| bad("cannot be read"))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let near =
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if near => {}
        _ => return Err(bad("does not begin with \"https://\"")),
    }
    let authority = url.find("://").map_or(0, |at| at + 3);
    let path = url[authority..].find('/').map(|at| authority + at).ok_or_else(|| bad("has no path"))?;
    Ok(url.split_at(path))
}

#[async_trait]
impl JwksSource for RemoteJwks {
    async fn fetch(&self) -> Result<Bytes> {
        let answer = self.transport.call(Call::new(Verb::Get, &*self.path)).await?;
        if answer.status != 200 {
            let message = format!("{self:?}: the answer has the status {}", answer.status);
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        Ok(answer.body)
    }
}

impl fmt::Debug for RemoteJwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteJwks").field("transport", &self.transport).field("path", &self.path).finish()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::transport::Answer;

    #[derive(Debug)]
    struct Issuer(u16);

    #[async_trait]
    impl Transport for Issuer {
        async fn call(&self, call: Call) -> Result<Answer> {
            assert_eq!((call.verb, &*call.path), (Verb::Get, "/keys"));
            Ok(Answer { status: self.0, offset: None, body: Bytes::from_static(b"{}") })
        }
    }

    #[test]
    fn only_a_whole_answer_is_a_key_set() {
        let fetch = |status| RemoteJwks::new(Issuer(status), "/keys").fetch().now_or_never().unwrap();
        assert_eq!(fetch(200).unwrap(), "{}");
        for status in [204, 206, 302, 401, 404, 500] {
            assert_eq!(fetch(status).unwrap_err().kind(), ErrorKind::Unavailable, "{status}");
        }
    }

    #[cfg(feature = "client")]
    #[test]
    fn keys_do_not_come_in_the_clear() {
        for good in [
            "https://id.acme.test/.well-known/jwks.json",
            "https://id.acme.test:8443/",
            "http://localhost:8080/keys",
            "http://127.0.0.1/keys",
            "http://[::1]:8080/keys",
        ] {
            assert!(split(good).is_ok(), "{good}");
        }
        assert_eq!(split("https://id.acme.test/a/b").unwrap(), ("https://id.acme.test", "/a/b"));
        for bad in [
            "http://id.acme.test/keys",
            "http://localhost.evil.test/keys",
            "http://127.0.0.1.evil.test/keys",
            "https://id.acme.test",
            "ftp://localhost/keys",
            "//localhost/keys",
            "/keys",
            "",
        ] {
            assert_eq!(split(bad).unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
        }
        assert!(RemoteJwks::at("https://u:hunter2@id.acme.test/keys", None).is_err());
    }
}
