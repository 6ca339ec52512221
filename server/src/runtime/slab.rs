//! A vector with holes: values at stable small indexes, free places reused last in, first out.
//!
//! The index travels through the kernel (an operation's user data) or another core (the place of a
//! waiting answer) and comes back; the newest free place is the warmest in cache.

/// Values at stable indexes.
#[derive(Debug)]
pub struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    /// An empty slab.
    #[must_use]
    pub fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts a value at a free place.
    pub fn insert(&mut self, value: T) -> u32 {
        if let Some(index) = self.free.pop() {
            self.places[index as usize] = Some(value);
            return index;
        }
        let index = u32::try_from(self.places.len()).expect("fewer than 2^32 values at a time");
        self.places.push(Some(value));
        index
    }

    /// The value at `index`, if the place is taken.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&T> {
        self.places.get(index as usize)?.as_ref()
    }

    /// The value at `index`, if the place is taken.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.places.get_mut(index as usize)?.as_mut()
    }

    /// Takes the value out; the place must be taken.
    pub fn remove(&mut self, index: u32) -> T {
        let value = self.places[index as usize].take().expect("the place is taken");
        self.free.push(index);
        value
    }

    /// All values with their places.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        (0u32..)
            .zip(self.places.iter_mut())
            .filter_map(|(index, place)| Some((index, place.as_mut()?)))
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::Slab;

    #[test]
    fn the_newest_free_place_is_reused_first() {
        let mut slab = Slab::new();
        let places: Vec<u32> = (0..4).map(|value| slab.insert(value)).collect();
        assert_eq!(slab.remove(places[1]), 1);
        assert_eq!(slab.remove(places[2]), 2);
        assert_eq!(slab.len(), 2);
        assert_eq!(slab.insert(9), places[2]);
        assert_eq!(slab.insert(8), places[1]);
        assert_eq!(slab.get(places[2]), Some(&9));
        assert_eq!(slab.insert(7), 4);
    }
}
