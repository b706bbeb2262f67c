//! Which steps of a part: a bit for each.

/// The steps; nothing is allocated before the first is set.
#[derive(Clone, Debug)]
pub struct Bits {
    len: u32,
    words: Vec<u64>,
}

impl Bits {
    /// None of so many steps.
    pub fn new(steps: u64) -> Self {
        Self {
            len: u32::try_from(steps).unwrap_or(0),
            words: Vec::new(),
        }
    }

    /// How many steps there are.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Sets one; whether it is there and was not set.
    pub fn set(&mut self, step: u64) -> bool {
        let Some(step) = u32::try_from(step).ok().filter(|step| *step < self.len) else {
            return false;
        };
        let was = self.has(step);
        self.put(step);
        !was
    }

    /// Sets one.
    pub fn put(&mut self, step: u32) {
        if self.words.is_empty() {
            self.words = vec![0; self.len.div_ceil(64) as usize];
        }
        if let Some(word) = self.words.get_mut(step as usize / 64) {
            *word |= 1 << (step % 64);
        }
    }

    /// Whether one is set.
    pub fn has(&self, step: u32) -> bool {
        let word = self.words.get(step as usize / 64);
        word.is_some_and(|word| word >> (step % 64) & 1 == 1)
    }

    /// Tells the runs of bits that are set among `steps` from `first` on.
    pub fn runs(&self, first: u32, steps: u32, mut tell: impl FnMut(u32, u32)) {
        if self.words.is_empty() {
            return;
        }
        let mut begun = None;
        for step in first..first + steps {
            match (self.has(step), begun) {
                (true, None) => begun = Some(step),
                (false, Some(from)) => {
                    tell(from, step - from);
                    begun = None;
                }
                _ => {}
            }
        }
        if let Some(from) = begun {
            tell(from, first + steps - from);
        }
    }
}
