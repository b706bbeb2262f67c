//! Values by part and step, dense: looked up for every page that is touched.

/// The values.
#[derive(Debug)]
pub struct Table<T>(Vec<Vec<Option<Box<T>>>>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

fn slot_of(step: u64) -> usize {
    usize::try_from(step).unwrap_or(usize::MAX)
}

impl<T> Table<T> {
    /// The value there.
    pub fn get(&self, (part, step): (usize, u64)) -> Option<&T> {
        self.0.get(part)?.get(slot_of(step))?.as_deref()
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, (part, step): (usize, u64)) -> Option<&mut T> {
        self.0.get_mut(part)?.get_mut(slot_of(step))?.as_deref_mut()
    }

    /// The value there; a new one where there is none.
    pub fn entry(&mut self, (part, step): (usize, u64), new: impl FnOnce() -> T) -> &mut T {
        let step = slot_of(step);
        if self.0.len() <= part {
            self.0.resize_with(part + 1, Vec::new);
        }
        let row = &mut self.0[part];
        if row.len() <= step {
            row.resize_with(step + 1, || None);
        }
        row[step].get_or_insert_with(|| Box::new(new()))
    }

    /// Takes the value there away.
    pub fn remove(&mut self, (part, step): (usize, u64)) -> Option<Box<T>> {
        self.0.get_mut(part)?.get_mut(slot_of(step))?.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_where_it_was_put() {
        let mut table = Table::default();
        assert_eq!(*table.entry((3, 7), || 1), 1);
        assert_eq!(*table.entry((3, 7), || 2), 1);
        *table.get_mut((3, 7)).unwrap() = 5;
        assert_eq!(
            (table.get((3, 7)), table.get((3, 6)), table.get((9, 7))),
            (Some(&5), None, None)
        );
        assert_eq!(table.remove((3, 7)).as_deref(), Some(&5));
        assert_eq!(table.get((3, 7)), None);
    }
}
