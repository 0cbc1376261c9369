//! The names of a segment by number, and whether a row uses them.

use std::collections::HashMap;

use rusqlite::Connection;

/// Numbers below this are assigned without gaps, and index a vector.
const DENSE: usize = 1 << 16;

/// The table `name`.
#[derive(Default)]
pub(crate) struct Names {
    dense: Vec<Option<Name>>,
    others: HashMap<i64, Name>,
}

struct Name {
    text: String,
    used: bool,
}

impl Names {
    /// Reads the table itself, not its index.
    pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut names = Self::default();
        let mut statement = connection.prepare("SELECT id, text FROM name NOT INDEXED")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (number, name) = (row.get(0)?, Name { text: row.get(1)?, used: false });
            match usize::try_from(number) {
                Ok(place) if place < DENSE => {
                    if names.dense.len() <= place {
                        names.dense.resize_with(place + 1, || None);
                    }
                    names.dense[place] = Some(name);
                }
                _ => {
                    names.others.insert(number, name);
                }
            }
        }
        Ok(names)
    }

    /// The name of this number, which is then marked as used.
    pub(crate) fn text(&mut self, number: i64) -> Option<&str> {
        let name = match usize::try_from(number) {
            Ok(place) if place < DENSE => self.dense.get_mut(place)?.as_mut()?,
            _ => self.others.get_mut(&number)?,
        };
        name.used = true;
        Some(&name.text)
    }

    /// A name that no row uses.
    pub(super) fn unused(&self) -> Option<&str> {
        let all = self.dense.iter().flatten().chain(self.others.values());
        all.filter(|name| !name.used).map(|name| &*name.text).next()
    }
}
