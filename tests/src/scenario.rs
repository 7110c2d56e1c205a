//! Stories every foreign client library takes part in.
