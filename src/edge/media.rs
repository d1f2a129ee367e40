//! Small documents as answers.

use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use serde::Serialize;

use super::Body;
use super::problem::Problem;
use crate::error::{Error, ErrorKind};

/// A small answer that is made anew each time; to a `HEAD` request it has no body.
pub(super) fn document(head: bool, media_type: &'static str, text: impl Into<Vec<u8>>) -> Response<Body> {
    let text = text.into();
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !head {
        *response.body_mut() = Body::from_bytes(text);
    }
    response
}

/// A JSON answer.
pub(super) fn json(head: bool, value: &impl Serialize) -> Result<Response<Body>, Problem> {
    let text = serde_json::to_vec(value).map_err(|cause| {
        Problem::of(&Error::new(ErrorKind::Internal, format!("an answer cannot be written: {cause}")))
    })?;
    Ok(document(head, "application/json", text))
}
