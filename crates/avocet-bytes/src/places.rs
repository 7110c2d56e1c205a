//! Where a byte lies among others: as the bits of a number, which are cheap to go through.

/// Bit `i` is set if byte `i` is this one.
#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
#[inline(always)]
#[must_use]
pub fn places(bytes: &[u8; 16], byte: u8) -> u16 {
    use core::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8};

    // SAFETY: the instructions are there, as said above. All 16 bytes that are read are those of the
    // array, and the read needs no alignment.
    let places = unsafe {
        let bytes = _mm_loadu_si128(bytes.as_ptr().cast());
        _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte.cast_signed())))
    };
    places as u16
}

/// Bit `i` is set if byte `i` is this one.
#[cfg(not(all(target_arch = "x86_64", target_feature = "sse2")))]
#[inline(always)]
#[must_use]
pub fn places(bytes: &[u8; 16], byte: u8) -> u16 {
    by_words(bytes, byte)
}

/// The same where no instruction does it.
#[cfg(any(test, not(all(target_arch = "x86_64", target_feature = "sse2"))))]
#[inline(always)]
fn by_words(bytes: &[u8; 16], byte: u8) -> u16 {
    const LOW: u64 = u64::from_ne_bytes([0x7f; 8]);
    let words = u128::from_le_bytes(*bytes);
    let places = |word: u64| {
        let word = word ^ u64::from_ne_bytes([byte; 8]);
        // The highest bit of each byte that is zero.
        let zeros = !(((word & LOW) + LOW) | word | LOW);
        // These bits, next to each other.
        (zeros >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
    };
    (places(words as u64) | places((words >> 64) as u64) << 8) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_the_letter(bytes: &[u8; 16], byte: u8) -> u16 {
        let places = bytes.iter().rev();
        places.fold(0, |places, &it| places << 1 | u16::from(it == byte))
    }

    /// Miri takes hours for all, and sees the same reads in a few of them.
    const STEP: usize = if cfg!(miri) { 37 } else { 1 };

    #[test]
    fn a_byte_is_found_wherever_it_lies() {
        for byte in (0..=u8::MAX).step_by(STEP) {
            for other in [0, 1, 0x7f, 0x80, 0xff, byte ^ 1, byte ^ 0x80] {
                for set in (0..300_u32).step_by(STEP) {
                    // All places of the low and of the high half, each beside some of the other.
                    let set = (set | set << 8) as u16 ^ (set >> 3) as u16;
                    let bytes: [u8; 16] =
                        core::array::from_fn(|at| if set >> at & 1 == 1 { byte } else { other });
                    let expected = by_the_letter(&bytes, byte);
                    assert_eq!(places(&bytes, byte), expected, "{bytes:?}");
                    assert_eq!(by_words(&bytes, byte), expected, "{bytes:?}");
                }
            }
        }
    }
}
