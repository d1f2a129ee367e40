//! Serves an edge on sockets.
