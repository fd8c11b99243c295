//! Removes names and images, with Docker's rules of what is in the way.

use berth_base::Timestamp;
use berth_docker::image::DeleteItem;
use berth_oci::{Digest, Reference};

use crate::error::{Error, Result};
use crate::images::Images;
use crate::names::{Edit, Name, Record};
use crate::resolve::{Found, Query};

/// A container and the image that it was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    pub container_id: String,
    pub image: Digest,
    pub running: bool,
}

/// What was removed: the answer for Docker's clients, and the image that it was about.
#[derive(Debug, Clone, PartialEq)]
pub struct Removed {
    pub id: Digest,
    pub items: Vec<DeleteItem>,
}

/// What a removal does. `items` is the answer when all edits are done.
#[derive(Debug)]
struct Plan {
    edits: Vec<Edit>,
    items: Vec<DeleteItem>,
}

impl Images {
    /// Removes a name, or a whole image by its id or its last name. `containers` are those that
    /// exist; with `force`, stopped ones and further names are no obstacle.
    ///
    /// # Errors
    /// [`crate::Kind::NotFound`] and [`crate::Kind::Conflict`] in Docker's words.
    pub fn remove(&self, text: &str, force: bool, containers: &[Usage]) -> Result<Removed> {
        let writes = self.writes();
        let found = self.find(text)?;
        let plan = plan(&found, text, force, containers, Timestamp::now())?;
        self.apply(plan.edits)?;
        drop(writes);
        self.sweep()?;
        Ok(Removed {
            id: found.target.digest,
            items: plan.items,
        })
    }

    /// Lets a new name point at an image.
    pub fn tag(&self, source: &str, name: &Reference) -> Result<Digest> {
        let _writes = self.writes();
        let found = self.find(source)?;
        let names = [name.clone().or_latest()];
        let edits =
            crate::names::plan_point(&self.state(), &names, &found.target, Timestamp::now());
        self.apply(edits)?;
        Ok(found.target.digest)
    }

    /// Removes the images without a name (`all`: without a container) that no container uses and
    /// that `wanted` accepts. Returns what went, and the bytes that were freed.
    pub fn prune(
        &self,
        all: bool,
        containers: &[Usage],
        wanted: impl Fn(&berth_docker::image::Summary) -> bool,
    ) -> Result<(Vec<DeleteItem>, u64)> {
        let mut items = Vec::new();
        let mut freed = 0;
        for summary in self.list(&crate::list::Options::default(), containers)? {
            let used = containers
                .iter()
                .any(|usage| usage.image.to_string() == summary.id);
            if used || !(all || summary.repo_tags.is_empty()) || !wanted(&summary) {
                continue;
            }
            let removed = self.remove(&summary.id, true, containers)?;
            items.extend(removed.items);
            freed += u64::try_from(summary.size).unwrap_or(0);
        }
        Ok((items, freed))
    }
}

fn plan(
    found: &Found,
    text: &str,
    force: bool,
    containers: &[Usage],
    now: Timestamp,
) -> Result<Plan> {
    let id = &found.target.digest;
    let mut obstacles = Obstacles {
        names: !force,
        stopped: !force,
    };
    let Some(name) = &found.name else {
        return remove_all(found, &obstacles, containers);
    };
    let Some(reference) = name.reference() else {
        return remove_all(found, &obstacles, containers);
    };
    let asked = match Query::parse(text)? {
        Query::Name(asked) if asked.digest().is_some() => asked,
        _ => reference.clone(),
    };
    let same = same_names(&asked, &found.names);
    if same.len() != found.names.len() {
        return Ok(Plan {
            edits: same
                .iter()
                .map(|name| Edit::Delete((*name).clone()))
                .collect(),
            items: same.iter().filter_map(|name| untagged(name)).collect(),
        });
    }
    // All the names that there are are meant, so they are not in each other's way.
    obstacles.names = false;
    if let Some(usage) = containers.iter().find(|usage| usage.image == *id) {
        if !force {
            return Err(Error::Conflict(format!(
                "conflict: unable to delete {} (must be forced) - container {} is using its \
                 referenced image {}",
                reference.familiar(),
                short(&usage.container_id),
                id.short(),
            )));
        }
        return Ok(lose_names(found, reference, now));
    }
    remove_all(found, &obstacles, containers)
}

/// The image is in use: it loses its names and stays, dangling.
fn lose_names(found: &Found, reference: &Reference, now: Timestamp) -> Plan {
    let record = Record {
        target: found.target.clone(),
        created: now,
        updated: now,
    };
    let dangling = Name::Dangling(found.target.digest.clone());
    let mut edits = vec![Edit::Put(dangling, record)];
    let names = found.names.iter().filter(|(name, _)| !name.is_dangling());
    edits.extend(names.map(|(name, _)| Edit::Delete(name.clone())));
    Plan {
        edits,
        items: vec![DeleteItem {
            untagged: reference.familiar(),
            ..DeleteItem::default()
        }],
    }
}

/// What keeps an image from being removed. A running container always does.
struct Obstacles {
    names: bool,
    stopped: bool,
}

fn remove_all(found: &Found, obstacles: &Obstacles, containers: &[Usage]) -> Result<Plan> {
    let id = &found.target.digest;
    let conflict = |force: &str, reason: String| {
        Err(Error::Conflict(format!(
            "conflict: unable to delete {} ({force}) - {reason}",
            id.short()
        )))
    };
    let users = || containers.iter().filter(|usage| usage.image == *id);
    if let Some(usage) = users().find(|usage| usage.running) {
        return conflict(
            "cannot be forced",
            format!(
                "image is being used by running container {}",
                short(&usage.container_id)
            ),
        );
    }
    if let Some(usage) = users().next()
        && obstacles.stopped
    {
        return conflict(
            "must be forced",
            format!(
                "image is being used by stopped container {}",
                short(&usage.container_id)
            ),
        );
    }
    if obstacles.names && found.names.len() > 1 {
        return conflict(
            "must be forced",
            "image is referenced in multiple repositories".to_owned(),
        );
    }
    let mut items: Vec<DeleteItem> = found
        .names
        .iter()
        .filter_map(|(name, _)| untagged(name))
        .collect();
    items.push(DeleteItem {
        deleted: id.to_string(),
        ..DeleteItem::default()
    });
    let edits = found
        .names
        .iter()
        .map(|(name, _)| Edit::Delete(name.clone()));
    Ok(Plan {
        edits: edits.collect(),
        items,
    })
}

/// The names that mean the same as the asked one: the name itself, names by digest when the
/// repository has no other tag, and dangling ones. A digest means all names of its repository.
fn same_names<'a>(asked: &Reference, names: &'a [(Name, Record)]) -> Vec<&'a Name> {
    let mut same = Vec::new();
    let mut by_digest = Some(Vec::new());
    let all_tags = asked.digest().is_some() && asked.tag().is_none();
    for (name, _) in names {
        let Some(reference) = name.reference() else {
            same.push(name);
            continue;
        };
        if reference.name() != asked.name() {
            continue;
        }
        match reference.tag() {
            _ if all_tags => same.push(name),
            Some(tag) if Some(tag) == asked.tag() => same.push(name),
            Some(_) => by_digest = None,
            None => by_digest.iter_mut().for_each(|list| list.push(name)),
        }
    }
    same.extend(by_digest.unwrap_or_default());
    same
}

fn untagged(name: &Name) -> Option<DeleteItem> {
    Some(DeleteItem {
        untagged: name.reference()?.familiar(),
        ..DeleteItem::default()
    })
}

fn short(container_id: &str) -> &str {
    container_id.get(..12).unwrap_or(container_id)
}

#[cfg(test)]
mod tests {
    use berth_oci::Descriptor;

    use super::*;

    fn found(asked: Option<&str>, names: &[&str]) -> Found {
        let target = Descriptor::of("x", b"x");
        let now = Timestamp(0);
        let record = Record {
            target: target.clone(),
            created: now,
            updated: now,
        };
        let parse = |name: &str| Name::Reference(name.parse().unwrap());
        Found {
            name: asked.map(parse),
            names: names
                .iter()
                .map(|name| (parse(name), record.clone()))
                .collect(),
            target,
        }
    }

    fn check(asked: Option<&str>, names: &[&str], force: bool, users: &[Usage], expect: &str) {
        let found = found(asked, names);
        let id = found.target.digest.to_string();
        let text = asked.unwrap_or(&id);
        let result = match plan(&found, text, force, users, Timestamp(0)) {
            Ok(plan) => {
                let words = plan.items.iter().map(|item| {
                    if item.deleted.is_empty() {
                        format!("-{}", item.untagged)
                    } else {
                        "deleted".to_owned()
                    }
                });
                words.collect::<Vec<_>>().join(" ")
            }
            Err(error) => error.to_string().replace(found.target.digest.short(), "ID"),
        };
        assert_eq!(result, expect);
    }

    fn user(running: bool) -> [Usage; 1] {
        [Usage {
            container_id: "c".repeat(64),
            image: Digest::of(b"x"),
            running,
        }]
    }

    #[test]
    fn the_last_name_takes_the_image_along() {
        check(Some("a:1"), &["a:1"], false, &[], "-a:1 deleted");
        check(Some("a:1"), &["a:1", "a:2"], false, &[], "-a:1");
        check(Some("a:1"), &["a:1", "b:1"], false, &user(true), "-a:1");
    }

    #[test]
    fn an_id_with_two_names_has_to_be_forced() {
        let sentence = "conflict: unable to delete ID (must be forced) - image is referenced in \
                        multiple repositories";
        check(None, &["a:1", "b:1"], false, &[], sentence);
        check(None, &["a:1", "b:1"], true, &[], "-a:1 -b:1 deleted");
        check(None, &["a:1"], false, &[], "-a:1 deleted");
    }

    #[test]
    fn containers_are_in_the_way_in_dockers_words() {
        check(
            Some("a:1"),
            &["a:1"],
            false,
            &user(false),
            "conflict: unable to delete a:1 (must be forced) - container cccccccccccc is using \
             its referenced image ID",
        );
        check(Some("a:1"), &["a:1"], true, &user(true), "-a:1");
        check(
            None,
            &["a:1"],
            false,
            &user(false),
            "conflict: unable to delete ID (must be forced) - image is being used by stopped \
             container cccccccccccc",
        );
        check(
            None,
            &["a:1"],
            true,
            &user(true),
            "conflict: unable to delete ID (cannot be forced) - image is being used by running \
             container cccccccccccc",
        );
        check(None, &["a:1"], true, &user(false), "-a:1 deleted");
    }
}
