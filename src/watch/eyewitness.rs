//! A person who looked at the machine, where no BMC says that it is off.

use super::recovery::HostLoss;
use crate::error::Failure;
use crate::fence::{FenceRecord, PowerProof};

impl HostLoss<'_> {
    /// Takes a person's word that the host is off into its fence, which has to stand already. `typed`: the host's name as
    /// that person typed it.
    ///
    /// # Errors
    /// When another name was typed, its fence is not that one any more, or the cluster cannot be asked.
    pub async fn seen_off(&self, record: &FenceRecord, typed: &str) -> Result<PowerProof, Failure> {
        let Some(proof) = PowerProof::by_eye(self.host, typed, &self.rack.run.by) else {
            return Err(Failure::usage(format!("`{typed}` was typed, and the host is {}", self.host)));
        };
        self.keep_power(record, &proof).await?;
        Ok(proof)
    }
}
