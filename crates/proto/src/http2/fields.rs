//! A list of fields in one buffer: no allocation once the buffer has grown.

/// Names and values in order, each with the mark whether it must never be indexed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    text: Vec<u8>,
    list: Vec<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    at: u32,
    name_len: u32,
    value_len: u32,
    is_sensitive: bool,
}

/// One field line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
    /// Was or is to be sent as never to be indexed.
    pub is_sensitive: bool,
}

/// A length of the list to go back to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    text: usize,
    count: usize,
}

impl Fields {
    /// Removes all fields and keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.list.clear();
    }

    /// Fields in the list.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Appends a field as it is.
    pub fn push(&mut self, name: &[u8], value: &[u8], is_sensitive: bool) {
        let start = self.begin();
        self.text.extend_from_slice(name);
        let name_end = self.text.len();
        self.text.extend_from_slice(value);
        self.end(start, name_end, is_sensitive);
    }

    /// All fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> + Clone {
        self.list.iter().map(|place| self.field(place))
    }

    /// The field at a place in the list.
    pub(super) fn get(&self, index: usize) -> Option<Field<'_>> {
        self.list.get(index).map(|place| self.field(place))
    }

    pub(super) fn last(&self) -> Option<(&[u8], &[u8])> {
        let field = self.field(self.list.last()?);
        Some((field.name, field.value))
    }

    /// Begins a field whose text is appended to [`Fields::text`]; returns its place.
    pub(super) fn begin(&self) -> usize {
        self.text.len()
    }

    pub(super) fn text(&mut self) -> &mut Vec<u8> {
        &mut self.text
    }

    /// Ends the field that began at `start`.
    pub(super) fn end(&mut self, start: usize, name_end: usize, is_sensitive: bool) {
        self.list.push(Place {
            at: start as u32,
            name_len: (name_end - start) as u32,
            value_len: (self.text.len() - name_end) as u32,
            is_sensitive,
        });
    }

    pub(super) fn mark(&self) -> Mark {
        Mark {
            text: self.text.len(),
            count: self.list.len(),
        }
    }

    /// Removes what came behind the mark.
    pub(super) fn truncate(&mut self, mark: Mark) {
        self.text.truncate(mark.text);
        self.list.truncate(mark.count);
    }

    fn field(&self, place: &Place) -> Field<'_> {
        let name = place.at as usize;
        let value = name + place.name_len as usize;
        Field {
            name: &self.text[name..value],
            value: &self.text[value..value + place.value_len as usize],
            is_sensitive: place.is_sensitive,
        }
    }
}
