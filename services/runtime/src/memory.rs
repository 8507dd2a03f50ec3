//! What a process holds in memory is its own: keys, tokens and payloads are in no core dump, and no other process of the
//! same user reads them through the debugger's door.

/// Takes this process out of core dumps and away from other processes of its user. Programs that it starts are not
/// bound by it. Where the system knows no such thing, nothing is done.
///
/// # Errors
/// When the system refuses.
pub fn keep_private() -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_that_keeps_its_memory_private_leaves_no_core_dump() {
        super::keep_private().unwrap();
        #[cfg(target_os = "linux")]
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), rustix::process::DumpableBehavior::NotDumpable);
    }
}
