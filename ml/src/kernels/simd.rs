//! The vector instructions that the kernels are written in, chosen when the program runs.
//!
//! A kernel is written once, generic over [`Lanes`], and compiled for AVX-512, for AVX2 with FMA and for whatever the
//! target has at least; [`Instructions`] says which this processor has and runs one. The set of operations is the handful that
//! convolution needs. Elementwise passes do not need it: they are bound by memory, and go through [`vectorised`].
//!
//! # Safety
//!
//! The one invariant: a value of [`Instructions`] or of a [`Lanes`] type exists only where the processor has been found to have the
//! instructions it stands for: only this file can make one, and does so after asking. The methods are inlined into the function
//! that is compiled with these instructions enabled (so a [`Kernel::run`] must be `#[inline(always)]`). Pointers are the caller's business, see [`Lanes::load`] and [`Lanes::store`].

#![allow(unsafe_code)]

/// A set of vector instructions; its value is the proof that the processor has them.
pub(super) trait Lanes: Copy + Send + Sync {
    /// One register of `f32`.
    type Vector: Copy;

    /// How many `f32` a register holds.
    const WIDTH: usize;

    /// All lanes equal to `value`.
    fn splat(self, value: f32) -> Self::Vector;

    /// Reads `WIDTH` values, at any alignment.
    ///
    /// # Safety
    ///
    /// `source` must be valid for reading `WIDTH` values.
    unsafe fn load(self, source: *const f32) -> Self::Vector;

    /// Writes `WIDTH` values, at any alignment.
    ///
    /// # Safety
    ///
    /// `target` must be valid for writing `WIDTH` values.
    unsafe fn store(self, target: *mut f32, value: Self::Vector);

    /// `a * b + c`, in one rounding where the processor can.
    fn multiply_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;

    /// `a + b`.
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// `a - b`.
    fn subtract(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// The larger of `a` and zero, lane by lane; NaN stays NaN.
    fn relu(self, a: Self::Vector) -> Self::Vector;
}

/// A computation that is generic over the instructions it uses.
pub(super) trait Kernel {
    /// What it computes.
    type Output;

    /// Runs with `lanes` and a register tile of `ROWS` rows by two vectors, which fits the register file.
    fn run<L: Lanes, const ROWS: usize>(self, lanes: L) -> Self::Output;
}

/// A set of instructions that this processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instructions(Set);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
    /// The widest registers and tiles, for tests on processors without them.
    #[cfg(test)]
    Wide,
}

impl Instructions {
    /// The widest that this processor has.
    pub(super) fn detect() -> Instructions {
        Self::available().next().expect("the portable set is always there")
    }

    /// All that this processor has, the widest first.
    pub(super) fn available() -> impl Iterator<Item = Instructions> {
        #[cfg(target_arch = "x86_64")]
        let sets = {
            let avx512 = std::arch::is_x86_feature_detected!("avx512f");
            let avx2 = std::arch::is_x86_feature_detected!("avx2")
                && std::arch::is_x86_feature_detected!("fma");
            [
                (avx512 && avx2).then_some(Set::Avx512),
                avx2.then_some(Set::Avx2),
                Some(Set::Portable),
            ]
        };
        #[cfg(not(target_arch = "x86_64"))]
        let sets = [Some(Set::Portable)];
        #[cfg(test)]
        let sets = sets.into_iter().chain([Some(Set::Wide)]);
        sets.into_iter().flatten().map(Instructions)
    }

    /// Lanes in a register.
    pub(super) fn width(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => x86::Avx512::WIDTH,
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => x86::Avx2::WIDTH,
            Set::Portable => Portable::<4>::WIDTH,
            #[cfg(test)]
            Set::Wide => Portable::<16>::WIDTH,
        }
    }

    /// Runs `kernel` with these instructions.
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            // SAFETY: `available`, the only source of values, has found AVX-512F.
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => unsafe { x86::run_avx512(kernel) },
            // SAFETY: `available`, the only source of values, has found AVX2 and FMA.
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => unsafe { x86::run_avx2(kernel) },
            Set::Portable => kernel.run::<Portable<4>, 4>(Portable(())),
            #[cfg(test)]
            Set::Wide => kernel.run::<Portable<16>, 12>(Portable(())),
        }
    }
}

/// Runs a plain loop, compiled for the widest instructions that this processor has; the compiler finds the vectors. The closure must be
/// `#[inline(always)]`, and so must be what it calls. It is called where it lies, for the function that calls a closure by value is not inlined, and would run
/// it with the instructions of the least processor.
pub(super) fn vectorised<T>(run: impl FnMut() -> T) -> T {
    struct Loop<F>(F);

    impl<T, F: FnMut() -> T> Kernel for Loop<F> {
        type Output = T;

        #[inline(always)]
        fn run<L: Lanes, const ROWS: usize>(mut self, _: L) -> T {
            (self.0)()
        }
    }

    Instructions::detect().run(Loop(run))
}

/// What every target has: lanes that the compiler turns into NEON, SSE2 or plain code.
#[derive(Clone, Copy)]
pub(super) struct Portable<const LANES: usize>(());

impl<const LANES: usize> Lanes for Portable<LANES> {
    type Vector = [f32; LANES];

    const WIDTH: usize = LANES;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Vector {
        [value; LANES]
    }

    #[inline(always)]
    unsafe fn load(self, source: *const f32) -> Self::Vector {
        // SAFETY: the caller vouches for `WIDTH` readable values; the alignment is not relied on.
        unsafe { source.cast::<Self::Vector>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, target: *mut f32, value: Self::Vector) {
        // SAFETY: the caller vouches for `WIDTH` writable values; the alignment is not relied on.
        unsafe { target.cast::<Self::Vector>().write_unaligned(value) }
    }

    #[inline(always)]
    fn multiply_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        // `f32::mul_add` would call into the mathematics library on targets without the instruction.
        std::array::from_fn(|lane| a[lane] * b[lane] + c[lane])
    }

    #[inline(always)]
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn subtract(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        std::array::from_fn(|lane| a[lane] - b[lane])
    }

    #[inline(always)]
    fn relu(self, a: Self::Vector) -> Self::Vector {
        std::array::from_fn(|lane| if a[lane] < 0.0 { 0.0 } else { a[lane] })
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! AVX2 with FMA and AVX-512F.

    use super::{Kernel, Lanes};
    use std::arch::x86_64::{
        __m256, __m512, _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps,
        _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps, _mm256_sub_ps, _mm512_add_ps,
        _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_max_ps, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_storeu_ps, _mm512_sub_ps,
    };

    /// # Safety
    ///
    /// The processor must have AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
        // Six rows by two vectors are twelve accumulators; two weights and a broadcast value make fifteen of sixteen registers.
        kernel.run::<Avx2, 6>(Avx2(()))
    }

    /// # Safety
    ///
    /// The processor must have AVX-512F.
    #[target_feature(enable = "avx512f,avx2,fma")]
    pub(super) unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Avx512, 12>(Avx512(()))
    }

    /// Proof of AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub(super) struct Avx2(());

    /// Proof of AVX-512F.
    #[derive(Clone, Copy)]
    pub(super) struct Avx512(());

    impl Lanes for Avx2 {
        type Vector = __m256;

        const WIDTH: usize = 8;

        #[inline(always)]
        fn splat(self, value: f32) -> Self::Vector {
            // SAFETY: `self` proves AVX2.
            unsafe { _mm256_set1_ps(value) }
        }

        #[inline(always)]
        unsafe fn load(self, source: *const f32) -> Self::Vector {
            // SAFETY: `self` proves AVX2; the caller vouches for the pointer.
            unsafe { _mm256_loadu_ps(source) }
        }

        #[inline(always)]
        unsafe fn store(self, target: *mut f32, value: Self::Vector) {
            // SAFETY: `self` proves AVX2; the caller vouches for the pointer.
            unsafe { _mm256_storeu_ps(target, value) }
        }

        #[inline(always)]
        fn multiply_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
            // SAFETY: `self` proves FMA.
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
            // SAFETY: `self` proves AVX2.
            unsafe { _mm256_add_ps(a, b) }
        }

        #[inline(always)]
        fn subtract(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
            // SAFETY: `self` proves AVX2.
            unsafe { _mm256_sub_ps(a, b) }
        }

        #[inline(always)]
        fn relu(self, a: Self::Vector) -> Self::Vector {
            // SAFETY: `self` proves AVX2. MAXPS answers its second operand when one is NaN.
            unsafe { _mm256_max_ps(_mm256_setzero_ps(), a) }
        }
    }

    impl Lanes for Avx512 {
        type Vector = __m512;

        const WIDTH: usize = 16;

        #[inline(always)]
        fn splat(self, value: f32) -> Self::Vector {
            // SAFETY: `self` proves AVX-512F.
            unsafe { _mm512_set1_ps(value) }
        }

        #[inline(always)]
        unsafe fn load(self, source: *const f32) -> Self::Vector {
            // SAFETY: `self` proves AVX-512F; the caller vouches for the pointer.
            unsafe { _mm512_loadu_ps(source) }
        }

        #[inline(always)]
        unsafe fn store(self, target: *mut f32, value: Self::Vector) {
            // SAFETY: `self` proves AVX-512F; the caller vouches for the pointer.
            unsafe { _mm512_storeu_ps(target, value) }
        }

        #[inline(always)]
        fn multiply_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
            // SAFETY: `self` proves AVX-512F.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
            // SAFETY: `self` proves AVX-512F.
            unsafe { _mm512_add_ps(a, b) }
        }

        #[inline(always)]
        fn subtract(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
            // SAFETY: `self` proves AVX-512F.
            unsafe { _mm512_sub_ps(a, b) }
        }

        #[inline(always)]
        fn relu(self, a: Self::Vector) -> Self::Vector {
            // SAFETY: `self` proves AVX-512F. VMAXPS answers its second operand when one is NaN.
            unsafe { _mm512_max_ps(_mm512_setzero_ps(), a) }
        }
    }
}
