//! Following the program through `exec` with an environment that was cleaned.
