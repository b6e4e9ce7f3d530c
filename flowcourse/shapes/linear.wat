;; Rows of numbers times the transpose of a weight, plus a bias, four products at a time: what linear() of tensors.js computes.
;; kernel.js holds it as bytes, which wat2wasm of the package wasmtime makes and a test compares. Pointers and strides are in
;; bytes; k, the numbers of a row, is a multiple of eight, so that each turn of the loops has two steps of four.
(module
  (memory (export "memory") 33)

  ;; The sum of four numbers
  (func $sum (param $v v128) (result f32)
    (f32.add
      (f32.add (f32x4.extract_lane 0 (local.get $v)) (f32x4.extract_lane 1 (local.get $v)))
      (f32.add (f32x4.extract_lane 2 (local.get $v)) (f32x4.extract_lane 3 (local.get $v)))))

  ;; Four rows x, `row` bytes apart, meet two rows of the weight: eight sums stay in registers. They are written to y, whose
  ;; rows are `out` bytes apart; the second column only if there is one, that is, if v is not u.
  (func $four
    (param $x i32) (param $u i32) (param $v i32) (param $bias i32) (param $y i32) (param $row i32) (param $out i32)
    (local $end i32) (local $x1 i32) (local $x2 i32) (local $x3 i32)
    (local $p v128) (local $q v128) (local $z v128)
    (local $a v128) (local $b v128) (local $c v128) (local $d v128)
    (local $e v128) (local $f v128) (local $g v128) (local $h v128)
    (local.set $end (i32.add (local.get $x) (local.get $row)))
    (local.set $x1 (i32.add (local.get $x) (local.get $row)))
    (local.set $x2 (i32.add (local.get $x1) (local.get $row)))
    (local.set $x3 (i32.add (local.get $x2) (local.get $row)))
    (if (i32.ne (local.get $u) (local.get $v))
      (then
        (loop $more
          (local.set $p (v128.load (local.get $u)))
          (local.set $q (v128.load (local.get $v)))
          (local.set $z (v128.load (local.get $x)))
          (local.set $a (f32x4.add (local.get $a) (f32x4.mul (local.get $z) (local.get $p))))
          (local.set $e (f32x4.add (local.get $e) (f32x4.mul (local.get $z) (local.get $q))))
          (local.set $z (v128.load (local.get $x1)))
          (local.set $b (f32x4.add (local.get $b) (f32x4.mul (local.get $z) (local.get $p))))
          (local.set $f (f32x4.add (local.get $f) (f32x4.mul (local.get $z) (local.get $q))))
          (local.set $z (v128.load (local.get $x2)))
          (local.set $c (f32x4.add (local.get $c) (f32x4.mul (local.get $z) (local.get $p))))
          (local.set $g (f32x4.add (local.get $g) (f32x4.mul (local.get $z) (local.get $q))))
          (local.set $z (v128.load (local.get $x3)))
          (local.set $d (f32x4.add (local.get $d) (f32x4.mul (local.get $z) (local.get $p))))
          (local.set $h (f32x4.add (local.get $h) (f32x4.mul (local.get $z) (local.get $q))))
          (local.set $p (v128.load offset=16 (local.get $u)))
          (local.set $q (v128.load offset=16 (local.get $v)))
          (local.set $z (v128.load offset=16 (local.get $x)))
          (local.set $a (f32x4.add (local.get $a) (f32x4.mul (local.get $z) (local.get $p))))
          (local.set $e (f32x4.add (local.get $e) (f32x4.mul (local.get $z) (local.get $q))))
          (local.set $z (v128.load offset=16 (local.get $x1)))
          (local.set $b (f32x4.add (local.get $b) (f32x4.mul (local.get $z) (local.get $p))))
          (local.set $f (f32x4.add (local.get $f) (f32x4.mul (local.get $z) (local.get $q))))
          (local.set $z (v128.load offset=16 (local.get $x2)))
          (local.set $c (f32x4.add (local.get $c) (f32x4.mul (local.get $z) (local.get $p))))
          (local.set $g (f32x4.add (local.get $g) (f32x4.mul (local.get $z) (local.get $q))))
          (local.set $z (v128.load offset=16 (local.get $x3)))
          (local.set $d (f32x4.add (local.get $d) (f32x4.mul (local.get $z) (local.get $p))))
          (local.set $h (f32x4.add (local.get $h) (f32x4.mul (local.get $z) (local.get $q))))
          (local.set $u (i32.add (local.get $u) (i32.const 32)))
          (local.set $v (i32.add (local.get $v) (i32.const 32)))
          (local.set $x1 (i32.add (local.get $x1) (i32.const 32)))
          (local.set $x2 (i32.add (local.get $x2) (i32.const 32)))
          (local.set $x3 (i32.add (local.get $x3) (i32.const 32)))
          (br_if $more
            (i32.lt_u (local.tee $x (i32.add (local.get $x) (i32.const 32))) (local.get $end))))
        (call $write (local.get $y) (local.get $out) (local.get $bias)
          (local.get $a) (local.get $b) (local.get $c) (local.get $d))
        (call $write
          (i32.add (local.get $y) (i32.const 4)) (local.get $out) (i32.add (local.get $bias) (i32.const 4))
          (local.get $e) (local.get $f) (local.get $g) (local.get $h)))
      (else
        (loop $more
          (local.set $p (v128.load (local.get $u)))
          (local.set $a (f32x4.add (local.get $a) (f32x4.mul (v128.load (local.get $x)) (local.get $p))))
          (local.set $b (f32x4.add (local.get $b) (f32x4.mul (v128.load (local.get $x1)) (local.get $p))))
          (local.set $c (f32x4.add (local.get $c) (f32x4.mul (v128.load (local.get $x2)) (local.get $p))))
          (local.set $d (f32x4.add (local.get $d) (f32x4.mul (v128.load (local.get $x3)) (local.get $p))))
          (local.set $p (v128.load offset=16 (local.get $u)))
          (local.set $a (f32x4.add (local.get $a) (f32x4.mul (v128.load offset=16 (local.get $x)) (local.get $p))))
          (local.set $b (f32x4.add (local.get $b) (f32x4.mul (v128.load offset=16 (local.get $x1)) (local.get $p))))
          (local.set $c (f32x4.add (local.get $c) (f32x4.mul (v128.load offset=16 (local.get $x2)) (local.get $p))))
          (local.set $d (f32x4.add (local.get $d) (f32x4.mul (v128.load offset=16 (local.get $x3)) (local.get $p))))
          (local.set $u (i32.add (local.get $u) (i32.const 32)))
          (local.set $x1 (i32.add (local.get $x1) (i32.const 32)))
          (local.set $x2 (i32.add (local.get $x2) (i32.const 32)))
          (local.set $x3 (i32.add (local.get $x3) (i32.const 32)))
          (br_if $more
            (i32.lt_u (local.tee $x (i32.add (local.get $x) (i32.const 32))) (local.get $end))))
        (call $write (local.get $y) (local.get $out) (local.get $bias)
          (local.get $a) (local.get $b) (local.get $c) (local.get $d)))))

  ;; Four sums and the bias, one below the other
  (func $write (param $y i32) (param $out i32) (param $bias i32)
    (param $a v128) (param $b v128) (param $c v128) (param $d v128)
    (local $add f32)
    (local.set $add (f32.load (local.get $bias)))
    (f32.store (local.get $y) (f32.add (call $sum (local.get $a)) (local.get $add)))
    (f32.store
      (local.tee $y (i32.add (local.get $y) (local.get $out)))
      (f32.add (call $sum (local.get $b)) (local.get $add)))
    (f32.store
      (local.tee $y (i32.add (local.get $y) (local.get $out)))
      (f32.add (call $sum (local.get $c)) (local.get $add)))
    (f32.store
      (i32.add (local.get $y) (local.get $out))
      (f32.add (call $sum (local.get $d)) (local.get $add))))

  ;; y (n, m) of x (n, k), weight (m, k) and bias (m): n is a multiple of four
  (func (export "linear")
    (param $x i32) (param $weight i32) (param $bias i32) (param $y i32)
    (param $n i32) (param $k i32) (param $m i32)
    (local $i i32) (local $j i32) (local $row i32) (local $out i32) (local $second i32)
    (local.set $row (i32.shl (local.get $k) (i32.const 2)))
    (local.set $out (i32.shl (local.get $m) (i32.const 2)))
    (loop $columns
      (local.set $second
        (select
          (i32.add (local.get $weight) (local.get $row))
          (local.get $weight)
          (i32.lt_u (i32.add (local.get $j) (i32.const 1)) (local.get $m))))
      (local.set $i (i32.const 0))
      (loop $rows
        (call $four
          (i32.add (local.get $x) (i32.mul (local.get $i) (local.get $row)))
          (local.get $weight) (local.get $second) (local.get $bias)
          (i32.add (local.get $y) (i32.mul (local.get $i) (local.get $out)))
          (local.get $row) (local.get $out))
        (br_if $rows
          (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 4))) (local.get $n))))
      (local.set $weight (i32.add (local.get $second) (local.get $row)))
      (local.set $bias (i32.add (local.get $bias) (i32.const 8)))
      (local.set $y (i32.add (local.get $y) (i32.const 8)))
      (br_if $columns
        (i32.lt_u (local.tee $j (i32.add (local.get $j) (i32.const 2))) (local.get $m))))))
