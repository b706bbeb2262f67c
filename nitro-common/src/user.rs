//! What lets aya move the wire types in and out of maps.

use crate::{AccessEvent, Counters, CursorKey, CursorState, FileKey, WatchedFile};

// SAFETY: each type derives bytemuck's `Pod`: no padding, no pointers, every bit pattern valid.
unsafe impl aya::Pod for AccessEvent {}
// SAFETY: as above.
unsafe impl aya::Pod for Counters {}
// SAFETY: as above.
unsafe impl aya::Pod for CursorKey {}
// SAFETY: as above.
unsafe impl aya::Pod for CursorState {}
// SAFETY: as above.
unsafe impl aya::Pod for FileKey {}
// SAFETY: as above.
unsafe impl aya::Pod for WatchedFile {}
