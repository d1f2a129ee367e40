#[path = "it/http/mod.rs"]
mod http;
#[path = "it/source/mod.rs"]
mod source;
#[path = "it/support/mod.rs"]
mod support;
