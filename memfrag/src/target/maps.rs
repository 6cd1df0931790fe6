//! temp
use super::Mapping;
/// temp
pub fn read(pid: u32) -> std::io::Result<Vec<Mapping>> {
    let _ = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    Ok(Vec::new())
}
