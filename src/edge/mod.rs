//! The edge service: gate, serve, receive.
