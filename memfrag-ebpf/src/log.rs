//! What the programs decided, told through aya-log in an object built for that (`cargo xtask ebpf --log`).

/// Says something about a decision. Nothing at all in the ordinary object.
macro_rules! tell {
    ($ctx:expr, $($message:tt)*) => {
        #[cfg(feature = "log")]
        aya_log_ebpf::debug!($ctx, $($message)*);
    };
}

pub(crate) use tell;
