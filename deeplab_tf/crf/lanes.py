"""Eight classes in one register: the vector arithmetic that the kernels of the dense CRF are written in.

A *row* holds the values of all classes of one pixel or lattice vertex, as `len(blocks)` registers of `LANES` floats
(`blocks` is a tuple: its length is known at compile time, so a row lives in registers throughout a kernel). numba's own
loops over the classes would need their number at compile time as well to be vectorised, and would keep the running sums
in memory.

Every function here is for use inside numba kernels only. Rows are read and written at `array[row, column:]`, where the
array is C-contiguous float32 [rows, columns].
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 8

_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)
_FAST = (
    "reassoc",
    "nsz",
    "arcp",
    "contract",
    "afn",
)  # all of LLVM's fast mathematics but its wish for no NaN and no inf


class RowType(types.Type):
    """The numba type of a row of `blocks` registers."""

    def __init__(self, blocks: int):
        self.blocks = blocks
        super().__init__(name=f"Row({blocks}x{LANES})")


@register_model(RowType)
class _RowModel(models.PrimitiveModel):
    def __init__(self, manager, row_type):
        super().__init__(manager, row_type, ir.ArrayType(_VECTOR, row_type.blocks))


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_VECTOR, [float(value)] * LANES)


def _broadcast(builder, scalar):
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_INTEGERS, [0] * LANES))


def _pack(builder, vectors):
    row = ir.Constant(ir.ArrayType(_VECTOR, len(vectors)), ir.Undefined)
    for block, vector in enumerate(vectors):
        row = builder.insert_value(row, vector, block)
    return row


def _unpack(builder, row):
    return [builder.extract_value(row, block) for block in range(row.type.count)]


def _fold(builder, operation, vectors, groups):
    """One register: lane k has the result of `operation` over all lanes of the vectors that are k modulo `groups`."""
    folded = vectors[0]
    for vector in vectors[1:]:
        folded = operation(folded, vector)
    turn = LANES // 2
    while turn >= groups:
        order = ir.Constant(_INTEGERS, [(lane + turn) % LANES for lane in range(LANES)])
        folded = operation(folded, builder.shuffle_vector(folded, ir.Constant(_VECTOR, ir.Undefined), order))
        turn //= 2
    return _pack(builder, [folded])


def _round(builder, vector):
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_VECTOR, [_VECTOR]), f"llvm.rint.v{LANES}f32"
    )
    return builder.call(function, [vector])


def _larger(builder, a, b):
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _pointers(context, builder, signature, args, blocks):
    """Pointers to the registers of `array[row, column:]`."""
    array = context.make_array(signature.args[0])(context, builder, args[0])
    indices = [context.cast(builder, args[i], signature.args[i], types.intp) for i in (1, 2)]
    first = cgutils.get_item_pointer(context, builder, signature.args[0], array, indices, wraparound=False)
    first = builder.bitcast(first, _VECTOR.as_pointer())
    return [builder.gep(first, [ir.Constant(ir.IntType(64), block)]) for block in range(blocks)]


@intrinsic
def fill(typingctx, value, blocks):
    """A row with the float32 `value` in every lane."""

    def codegen(context, builder, signature, args):
        return _pack(builder, [_broadcast(builder, args[0])] * len(blocks))

    return RowType(len(blocks))(types.float32, blocks), codegen


@intrinsic
def repeat(typingctx, register, blocks):
    """A row of `len(blocks)` times the same register, which is a row of one."""

    def codegen(context, builder, signature, args):
        return _pack(builder, _unpack(builder, args[0]) * len(blocks))

    return RowType(len(blocks))(register, blocks), codegen


@intrinsic
def load(typingctx, array, row, column, blocks):
    """The row at `array[row, column:]`."""

    def codegen(context, builder, signature, args):
        pointers = _pointers(context, builder, signature, args, len(blocks))
        return _pack(builder, [builder.load(pointer, align=4) for pointer in pointers])

    return RowType(len(blocks))(array, row, column, blocks), codegen


@intrinsic
def store(typingctx, array, row, column, values):
    """Writes the row `values` to `array[row, column:]`."""

    def codegen(context, builder, signature, args):
        pointers = _pointers(context, builder, signature, args, values.blocks)
        for pointer, vector in zip(pointers, _unpack(builder, args[3]), strict=True):
            builder.store(vector, pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, row, column, values), codegen


@intrinsic
def prefetch(typingctx, array, row, column, blocks):
    """Asks for the row at `array[row, column:]` to be brought into the cache."""

    def codegen(context, builder, signature, args):
        pointers = _pointers(context, builder, signature, args, len(blocks))
        byte = ir.IntType(8).as_pointer()
        number = ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [byte, number, number, number]), "llvm.prefetch.p0i8"
        )
        for pointer in {0: pointers[0], len(pointers) - 1: pointers[-1]}.values():
            builder.call(function, [builder.bitcast(pointer, byte), number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, row, column, blocks), codegen


@intrinsic
def multiply_add(typingctx, factor, values, total):
    """`factor * values + total` for a float32 and two rows."""

    def codegen(context, builder, signature, args):
        factors = _broadcast(builder, args[0])
        pairs = zip(_unpack(builder, args[1]), _unpack(builder, args[2]), strict=True)
        return _pack(builder, [builder.fadd(builder.fmul(factors, a, flags=_FAST), b, flags=_FAST) for a, b in pairs])

    return values(types.float32, values, total), codegen


def _lanewise(operation):
    """The code of an intrinsic that does `operation(builder, x, y, ...)` register by register."""

    def codegen(context, builder, signature, args):
        registers = zip(*(_unpack(builder, row) for row in args), strict=True)
        return _pack(builder, [operation(builder, *vectors) for vectors in registers])

    return codegen


@intrinsic
def add(typingctx, a, b):
    """The sum of two rows."""
    return a(a, b), _lanewise(lambda builder, x, y: builder.fadd(x, y, flags=_FAST))


@intrinsic
def subtract(typingctx, a, b):
    """The difference of two rows."""
    return a(a, b), _lanewise(lambda builder, x, y: builder.fsub(x, y, flags=_FAST))


@intrinsic
def multiply(typingctx, a, b):
    """The product of two rows, lane by lane."""
    return a(a, b), _lanewise(lambda builder, x, y: builder.fmul(x, y, flags=_FAST))


@intrinsic
def maximum(typingctx, a, b):
    """The larger of two rows, lane by lane."""
    return a(a, b), _lanewise(_larger)


@intrinsic
def less(typingctx, a, b):
    """1.0 where a < b, 0.0 elsewhere, lane by lane."""
    return a(a, b), _lanewise(
        lambda builder, x, y: builder.select(builder.fcmp_ordered("<", x, y), _constant(1), _constant(0))
    )


@intrinsic
def round(typingctx, values):
    """Every lane rounded to the nearest whole number, halves to even."""
    return values(values), _lanewise(_round)


@intrinsic
def inverse(typingctx, values):
    """1 / values, lane by lane."""
    return values(values), _lanewise(lambda builder, x: builder.fdiv(_constant(1), x))


@intrinsic
def largest(typingctx, values, groups):
    """One register: lane k has the largest of all values in the lanes that are k modulo `len(groups)`."""

    def codegen(context, builder, signature, args):
        return _fold(builder, lambda a, b: _larger(builder, a, b), _unpack(builder, args[0]), len(groups))

    return RowType(1)(values, groups), codegen


@intrinsic
def total(typingctx, values, groups):
    """One register: lane k has the sum of all values in the lanes that are k modulo `len(groups)`."""

    def codegen(context, builder, signature, args):
        return _fold(builder, lambda a, b: builder.fadd(a, b, flags=_FAST), _unpack(builder, args[0]), len(groups))

    return RowType(1)(values, groups), codegen


def _exp(builder, x):
    """e^x to two units in the last place: 2^n times a polynomial on [-ln2/2, ln2/2] (Cephes' expf).

    Below -50 it stays e^-50: no belief needs less, and its products keep clear of the slow denormal numbers.
    """

    def times(a, b):
        return builder.fmul(a, b, flags=("contract",))

    def plus(a, b):
        return builder.fadd(a, b, flags=("contract",))

    x = _larger(builder, x, _constant(-50.0))
    n = _round(builder, times(x, _constant(1.4426950408889634)))
    # ln2 in two parts, the first exact in few bits, so that the remainder keeps its precision.
    r = plus(x, times(n, _constant(-0.693359375)))
    r = plus(r, times(n, _constant(2.12194440e-4)))
    polynomial = _constant(1.9875691500e-4)
    for coefficient in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        polynomial = plus(times(polynomial, r), _constant(coefficient))
    polynomial = plus(plus(times(polynomial, times(r, r)), r), _constant(1.0))
    exponent = builder.add(builder.fptosi(n, _INTEGERS), ir.Constant(_INTEGERS, [127] * LANES))
    power = builder.bitcast(builder.shl(exponent, ir.Constant(_INTEGERS, [23] * LANES)), _VECTOR)
    return times(polynomial, power)


@intrinsic
def exp(typingctx, values):
    """The exponential of a row whose values are at most 88."""
    return values(values), _lanewise(_exp)
