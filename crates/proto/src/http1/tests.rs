//! Tests of the HTTP/1 codec.
