//! Who is at which volume: changes of one name wait for each other, and a container that is being
//! created has its volumes before anybody can see it.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::MutexGuard;

use crate::shared::Shared;

/// How many changes can go on at once. Two names that share one wait for each other for nothing.
const TURNS: usize = 64;

#[derive(Debug)]
pub struct Turns([tokio::sync::Mutex<()>; TURNS]);

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| tokio::sync::Mutex::new(())))
    }
}

impl Turns {
    /// Waits until nobody else changes one of the names; they are the caller's while it holds
    /// what it gets.
    pub async fn take(&self, names: &[&str]) -> Vec<MutexGuard<'_, ()>> {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let turn = |name: &&str| usize::try_from(hasher.hash_one(name) % TURNS as u64);
        // In one order, so that nobody waits in a circle.
        let mut turns: Vec<usize> = names.iter().flat_map(turn).collect();
        turns.sort_unstable();
        turns.dedup();
        let mut guards = Vec::with_capacity(turns.len());
        for turn in turns {
            guards.push(self.0[turn].lock().await);
        }
        guards
    }
}

/// The volumes of containers that are not in the table yet, by the containers' ids.
#[derive(Debug, Default)]
pub struct Claims(Mutex<BTreeMap<String, Vec<String>>>);

impl Claims {
    pub fn add(&self, container: &str, volume: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let volumes = all.entry(container.to_owned()).or_default();
        volumes.push(volume.to_owned());
    }

    /// The containers that claim a volume.
    pub fn of(&self, volume: &str) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .filter(|(_, volumes)| volumes.iter().any(|name| name == volume))
            .map(|(container, _)| container.clone())
            .collect()
    }

    fn end(&self, container: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(container);
    }
}

/// A container's claims, which end with it.
pub struct Claim {
    pub shared: Arc<Shared>,
    pub container: String,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.volumes.claims.end(&self.container);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_that_share_a_turn_do_not_wait_for_themselves() {
        let turns = Turns::default();
        let names: Vec<String> = (0..200).map(|n| n.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(turns.take(&names).await.len(), TURNS);
        drop(turns.take(&["a", "a"]).await);
    }
}
