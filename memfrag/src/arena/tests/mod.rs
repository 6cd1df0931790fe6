mod arena;
mod free_list;
mod reports;
