//! What may be said of artifacts: labels, properties, formats, media types.

use super::artifact::{AddOptions, Artifact, MAX_TAGS};
use crate::error::{Error, ErrorKind, Result};

pub(super) fn check_options(options: &AddOptions) -> Result<()> {
    if let Some(format) = &options.format {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if format.is_empty() || format.len() > 32 || !format.bytes().all(plain) {
            return Err(Error::invalid(format!(
                "{format:?} is not a repository format: expected 1 to 32 of a-z, 0-9 and -"
            )));
        }
    }
    if let Some(media_type) = &options.media_type {
        let (kind, rest) = media_type.split_once('/').unwrap_or_default();
        if kind.is_empty()
            || rest.is_empty()
            || media_type.len() > 255
            || !media_type.bytes().all(|byte| (0x20..0x7f).contains(&byte))
        {
            return Err(Error::invalid(format!("{media_type:?} is not a media type like application/json")));
        }
    }
    for label in &options.labels {
        check_label(label)?;
    }
    for (name, value) in &options.properties {
        check_property(name, value)?;
    }
    Ok(())
}

/// A label: 1-128 of `A-Z a-z 0-9 . _ + : / -`, led by a letter or digit.
pub(super) fn check_label(label: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._+:/-".contains(&byte);
    let led = label.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if led && label.len() <= 128 && label.bytes().all(plain) {
        return Ok(());
    }
    let shown: String = label.chars().take(120).collect();
    Err(Error::invalid(format!(
        "{shown:?} is not a label: expected 1 to 128 of letters, digits and . _ + : / -, led by a letter or digit"
    )))
}

/// A property: a key of 1-128 `A-Z a-z 0-9 . _ -`, a value of at most 1,024 bytes without control characters.
pub(super) fn check_property(name: &str, value: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > 128 || !name.bytes().all(plain) {
        let shown: String = name.chars().take(120).collect();
        return Err(Error::invalid(format!(
            "{shown:?} is not a property's name: expected 1 to 128 of letters, digits and . _ -"
        )));
    }
    if value.len() > 1024 || value.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "the value of the property {name} has more than 1024 bytes or a control character"
        )));
    }
    Ok(())
}

pub(super) fn check_counts(artifact: &Artifact) -> Result<()> {
    if artifact.labels.len() > MAX_TAGS || artifact.properties.len() > MAX_TAGS {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("{} would have more than {MAX_TAGS} labels or properties", artifact.place()),
        ));
    }
    Ok(())
}
