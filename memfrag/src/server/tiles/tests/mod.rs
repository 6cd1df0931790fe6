//! Every mode and level against a list of blocks, and what a page has made of its frames against a view drawn anew.

mod oracle;
mod stream;
