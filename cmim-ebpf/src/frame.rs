//! A packet's memory in XDP.

use core::arch::asm;

use aya_ebpf::programs::XdpContext;
use cmim_common::packet::{FURTHEST, Packet};

/// XDP gives a packet's start and its end; the verifier follows every access back to a check against the end. A frame is
/// void once a helper has moved either.
pub(crate) struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    #[inline(always)]
    pub(crate) fn of(context: &XdpContext) -> Self {
        // Volatile, so that the reads stay here: LLVM likes to read before it calls a function with the context and to
        // hand over what it read, as 32 bits that the verifier no longer takes for a packet's address.
        let field = |field: *const u32| {
            // SAFETY: the kernel hands every program a readable context, and its fields are plain integers.
            unsafe { field.read_volatile() as usize }
        };
        // SAFETY: addresses of fields; nothing is read.
        let (start, end) = unsafe { (&raw const (*context.ctx).data, &raw const (*context.ctx).data_end) };
        Self { start: field(start), end: field(end) }
    }

    #[inline(always)]
    pub(crate) fn length(&self) -> u64 {
        self.end.saturating_sub(self.start) as u64
    }

    /// Overwrites `N` bytes from `offset` on; `None` if the packet ends before their end.
    #[inline(always)]
    pub(crate) fn write<const N: usize>(&self, offset: usize, bytes: [u8; N]) -> Option<()> {
        let at = self.at::<N>(offset)?;
        // SAFETY: the N bytes at `at` lie between the packet's start and its end, and bytes need no alignment.
        unsafe { *(at as *mut [u8; N]) = bytes };
        Some(())
    }

    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Option<usize> {
        if offset > FURTHEST {
            return None;
        }
        let from = self.start + offset;
        if from + N > self.end { None } else { Some(from) }
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let at = self.at::<N>(offset)?;
        // SAFETY: the N bytes at `at` lie between the packet's start and its end, and bytes need no alignment.
        Some(unsafe { *(at as *const [u8; N]) })
    }

    /// The difference of two packet pointers is any number to the verifier, which the mask bounds again.
    #[inline(always)]
    fn settle(&self, offset: usize) -> usize {
        let mut pointer = self.start + offset;
        // An instruction, and not a comment as for less: two lines of source at one instruction are no valid BTF.
        // SAFETY: moves a register to itself; the compiler has to forget what it knows of it.
        unsafe { asm!("{0} = {0}", inout(reg) pointer, options(nomem, nostack, preserves_flags)) };
        (pointer - self.start) & 0xffff
    }
}
