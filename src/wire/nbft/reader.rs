//! The heap, and how descriptors refer to it.

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::raw::HeapRef;
use super::{Damage, Descriptor, Problem, TRTYPE_TCP, text};

/// The heap, and the table around it: offsets count from the table's first byte.
#[derive(Debug, Clone, Copy)]
pub struct Heap<'a> {
    pub table: &'a [u8],
    pub start: usize,
    pub end: usize,
}

impl<'a> Heap<'a> {
    pub fn get(&self, place: HeapRef) -> Option<&'a [u8]> {
        if place.length.get() == 0 {
            return Some(&[]);
        }
        let start = usize::try_from(place.offset.get()).ok()?;
        let end = start.checked_add(usize::from(place.length.get()))?;
        let inside = self.start <= start && end <= self.end;
        if inside { self.table.get(start..end) } else { None }
    }
}

/// Follows the references of one descriptor.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    pub heap: Heap<'a>,
    pub descriptor: Descriptor,
    pub index: u16,
}

impl<'a> Reader<'a> {
    pub fn damage(&self, field: &'static str, problem: Problem) -> Damage {
        Damage { descriptor: self.descriptor, index: self.index, field, problem }
    }

    pub fn id(&self, id: u8, expected: u8) -> Result<(), Damage> {
        if id == expected { Ok(()) } else { Err(self.damage("descriptor", Problem::StructureId(id))) }
    }

    pub fn tcp(&self, trtype: u8) -> Result<(), Damage> {
        if trtype == TRTYPE_TCP { Ok(()) } else { Err(self.damage("descriptor", Problem::Transport(trtype))) }
    }

    /// Empty when there is nothing.
    pub fn bytes(&self, field: &'static str, place: HeapRef) -> Result<&'a [u8], Damage> {
        self.heap.get(place).ok_or(self.damage(field, Problem::OutsideHeap))
    }

    pub fn text(&self, field: &'static str, place: HeapRef) -> Result<&'a str, Damage> {
        text(self.bytes(field, place)?).ok_or(self.damage(field, Problem::NotText))
    }

    pub fn view<T: FromBytes + KnownLayout + Immutable + Unaligned>(
        &self,
        field: &'static str,
        place: HeapRef,
    ) -> Result<(&'a T, &'a [u8]), Damage> {
        let bytes = self.bytes(field, place)?;
        if bytes.is_empty() {
            return Err(self.damage(field, Problem::Missing));
        }
        T::ref_from_prefix(bytes).map_err(|_| self.damage(field, Problem::Length(bytes.len())))
    }
}

/// Takes what is good, and notes what is not: the first flaw is kept.
pub fn or_flaw<T: Default>(result: Result<T, Damage>, flaw: &mut Option<Damage>) -> T {
    result.unwrap_or_else(|damage| {
        flaw.get_or_insert(damage);
        T::default()
    })
}
