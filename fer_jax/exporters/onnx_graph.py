"""From a traced function to an ONNX graph: the operations that the networks are made of, and no others.

What depends on constants alone is computed while converting. Values are broadcast by ONNX's own rules where jax spells
it out, so that the batch size stays free. Images stay [B, H, W, C] outside; each convolution turns them and turns them
back, which runtimes cancel.
"""

import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from fer_jax.errors import UserError

OPSET, IR_VERSION = 18, 8  # read by onnxruntime 1.14 and newer
UNKNOWN_SIZE = -1  # the one dimension that is not known

BINARY = {'add': 'Add', 'sub': 'Sub', 'mul': 'Mul', 'div': 'Div', 'max': 'Max', 'min': 'Min', 'pow': 'Pow'}
UNARY = {
    'abs': 'Abs',
    'exp': 'Exp',
    'log': 'Log',
    'logistic': 'Sigmoid',
    'neg': 'Neg',
    'sqrt': 'Sqrt',
    'tanh': 'Tanh',
}
REDUCED = {'reduce_sum': 'ReduceSum', 'reduce_max': 'ReduceMax', 'reduce_min': 'ReduceMin'}
SAME = ('copy', 'copy_p', 'stop_gradient')
# Those that give the same of a value whether what jax has broadcast is spelt out or not; see `Tensor.shape`.
LAZY = {*BINARY, *UNARY, *SAME}
LAZY |= {'broadcast_in_dim', 'convert_element_type', 'integer_pow', 'rev', 'rsqrt', 'square', 'transpose'}
INLINED = ('jit', 'pjit', 'closed_call', 'custom_jvp_call', 'custom_vjp_call', 'custom_vjp_call_jaxpr')


class Tensor(NamedTuple):
    """A value that the graph computes.

    Attributes:
      shape: `UNKNOWN_SIZE` for the batch; 1 where the size in jax is larger and every use broadcasts the value.
      dtype: numpy dtype.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Any


Value = Tensor | np.ndarray


def convert(
    function: Callable[[jax.Array], jax.Array],
    shape: tuple[int, ...],
    *,
    names: tuple[str, str],
    metadata: Mapping[str, str],
) -> Any:
    """Converts a function to an `onnx.ModelProto` that accepts any batch size.

    Args:
      function: uint8 [B, *shape] -> float32 [B, ...].
      shape: shape of one input.
      names: names of the input and the output.
      metadata: values to write into the file.

    Raises:
      UserError: the package onnx is missing, or the function has an operation that this converter does not know.
    """
    try:
        import onnx
        from onnx import helper, numpy_helper
    except ImportError:
        raise UserError("writing ONNX needs the package onnx; run pip install 'fer_jax[export]'") from None
    (size,) = jax.export.symbolic_shape('B')
    traced = jax.make_jaxpr(function)(jax.ShapeDtypeStruct((size, *shape), np.uint8))
    graph = Graph(size)
    (out,) = graph.run(traced.jaxpr, traced.consts, [Tensor(names[0], (UNKNOWN_SIZE, *shape), np.dtype(np.uint8))])
    made = graph.whole(out, graph.sizes(traced.jaxpr.outvars[0].aval.shape))
    graph.nodes.append(('Identity', [made.name], names[1], {}))
    ends = ((names[0], np.dtype(np.uint8), shape), (names[1], made.dtype, made.shape[1:]))
    info, dtype_of = helper.make_tensor_value_info, helper.np_dtype_to_tensor_dtype
    sides = [info(name, dtype_of(kind), ['batch', *sizes]) for name, kind, sizes in ends]
    nodes = [helper.make_node(kind, given, [made], **options) for kind, given, made, options in graph.nodes]
    held = [numpy_helper.from_array(array, name) for name, array in graph.constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, 'fer_jax', sides[:1], sides[1:], held),
        opset_imports=[helper.make_opsetid('', OPSET)],
        ir_version=IR_VERSION,
        producer_name='fer_jax',
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


class Graph:
    """The nodes and constants of a graph under construction.

    Attributes:
      nodes: (operator, inputs, output, attributes), in order.
      constants: name -> array.
    """

    def __init__(self, size: Any):
        self.nodes: list[tuple[str, list[str], str, dict[str, Any]]] = []
        self.constants: dict[str, np.ndarray] = {}
        self._size = size
        self._known: dict[int, tuple[np.ndarray, str]] = {}

    def run(self, jaxpr: Any, consts: Sequence[Any], given: Sequence[Value]) -> list[Value]:
        """Adds nodes for the equations of `jaxpr`, and returns the values of its outputs."""
        values: dict[Any, Value] = dict(zip(jaxpr.constvars, map(np.asarray, consts), strict=True))
        values |= dict(zip(jaxpr.invars, given, strict=True))

        def value(atom: Any) -> Value:
            return np.asarray(atom.val) if isinstance(atom, core.Literal) else values[atom]

        for equation in jaxpr.eqns:
            results = self._equation(equation, [value(atom) for atom in equation.invars])
            values |= dict(zip(equation.outvars, results, strict=True))
        return [value(atom) for atom in jaxpr.outvars]

    def _equation(self, equation: Any, given: list[Value]) -> list[Value]:
        name, parameters = equation.primitive.name, equation.params
        out = equation.outvars[0].aval
        if name in INLINED:
            inner = parameters.get('jaxpr') or parameters.get('call_jaxpr') or parameters.get('fun_jaxpr')
            return self.run(inner.jaxpr, inner.consts, given) if hasattr(inner, 'jaxpr') else self.run(inner, (), given)
        shape = self.sizes(out.shape)
        if all(isinstance(value, np.ndarray) for value in given) and UNKNOWN_SIZE not in shape:
            made = equation.primitive.bind(*given, **parameters)
            return [np.asarray(value) for value in (made if equation.primitive.multiple_results else [made])]
        if name in SAME:
            return given
        if name not in LAZY:
            whole = [self.sizes(atom.aval.shape) for atom in equation.invars]
            given = [x if x.shape == own else self.whole(x, own) for x, own in zip(given, whole, strict=True)]
        if name in BINARY:
            tensors = [self.tensor(value) for value in given]
            return [self._made(BINARY[name], tensors, broadcast(*(value.shape for value in tensors)), out.dtype)]
        if name in UNARY:
            (x,) = map(self.tensor, given)
            return [self._made(UNARY[name], [x], x.shape, out.dtype)]
        if name in REDUCED:
            x, axes = self.tensor(given[0]), self._integers(parameters['axes'])
            return [self._made(REDUCED[name], [x, axes], shape, out.dtype, keepdims=0)]
        handler = getattr(self, f'_{name}', None)
        if handler is None:
            raise UserError(
                f'the operation {name} has no form in ONNX here; export to stablehlo, or name it in an issue'
            )
        return [handler(given, shape, out.dtype, **parameters)]

    def sizes(self, dims: Sequence[Any]) -> tuple[int, ...]:
        sizes = []
        for dim in dims:
            if not isinstance(dim, int) and not dim == self._size:
                raise UserError(f'a size of {dim} cannot be written to ONNX, where B, the batch, alone is free')
            sizes.append(dim if isinstance(dim, int) else UNKNOWN_SIZE)
        return tuple(sizes)

    def tensor(self, value: Value) -> Tensor:
        """Returns a value as a named tensor; a constant is added to `constants` under a new name."""
        if isinstance(value, Tensor):
            return value
        if id(value) not in self._known:
            name = f'c{len(self.constants)}'
            self.constants[name] = value
            self._known[id(value)] = (value, name)  # the array too: an id is one's own only while it lives
        return Tensor(self._known[id(value)][1], value.shape, value.dtype)

    def _integers(self, values: Sequence[int]) -> Tensor:
        return self.tensor(np.array(values, np.int64))

    def _made(self, kind: str, given: Sequence[Tensor], shape: tuple[int, ...], dtype: Any, **options: Any) -> Tensor:
        made = Tensor(f't{len(self.nodes)}', shape, np.dtype(dtype))
        self.nodes.append((kind, [value.name for value in given], made.name, options))
        return made

    def _reshaped(self, value: Value, shape: tuple[int, ...]) -> Value:
        if isinstance(value, np.ndarray):
            return value.reshape(shape)
        if value.shape == shape:
            return value
        return self._made('Reshape', [value, self._integers(shape)], shape, value.dtype)

    def _turned(self, value: Value, order: Sequence[int]) -> Tensor:
        if isinstance(value, np.ndarray):
            return self.tensor(value.transpose(order))
        if list(order) == list(range(len(order))):
            return value
        shape = tuple(value.shape[axis] for axis in order)
        return self._made('Transpose', [value], shape, value.dtype, perm=list(order))

    def whole(self, value: Value, shape: tuple[int, ...]) -> Tensor:
        """Returns a tensor of the full `shape`, with a node that expands a value that jax has broadcast."""
        tensor = self.tensor(value)
        if tensor.shape == shape:
            return tensor
        if any(have != want == UNKNOWN_SIZE for have, want in zip(tensor.shape, shape, strict=True)):
            raise UserError(
                'a value that is the same for all images is used as if each had its own; ONNX cannot say it'
            )
        target = self._integers([1 if size == UNKNOWN_SIZE else size for size in shape])
        return self._made('Expand', [tensor, target], shape, tensor.dtype)

    def _rsqrt(self, given: list[Value], shape: Any, dtype: Any, /, **_: Any) -> Tensor:
        x = self.tensor(given[0])
        return self._made('Reciprocal', [self._made('Sqrt', [x], x.shape, dtype)], x.shape, dtype)

    def _integer_pow(self, given: list[Value], shape: Any, dtype: Any, /, *, y: int, **_: Any) -> Tensor:
        x = self.tensor(given[0])
        return self._made('Pow', [x, self.tensor(np.array(y, dtype))], x.shape, dtype)

    def _square(self, given: list[Value], shape: Any, dtype: Any, /, **_: Any) -> Tensor:
        x = self.tensor(given[0])
        return self._made('Mul', [x, x], x.shape, dtype)

    def _convert_element_type(self, given: list[Value], shape: Any, dtype: Any, /, **_: Any) -> Tensor:
        from onnx import helper

        x = self.tensor(given[0])
        return self._made('Cast', [x], x.shape, dtype, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def _reshape(self, given: list[Value], shape: Any, dtype: Any, /, **_: Any) -> Value:
        return self._reshaped(given[0], shape)

    _squeeze = _expand_dims = _reshape

    def _transpose(self, given: list[Value], shape: Any, dtype: Any, /, *, permutation: Any, **_: Any) -> Tensor:
        return self._turned(given[0], permutation)

    def _broadcast_in_dim(
        self, given: list[Value], shape: Any, dtype: Any, /, *, broadcast_dimensions: Any, **_: Any
    ) -> Value:
        sizes = [1] * len(shape)
        for axis, size in zip(broadcast_dimensions, given[0].shape, strict=True):
            sizes[axis] = size
        return self._reshaped(given[0], tuple(sizes))

    def _concatenate(self, given: list[Value], shape: Any, dtype: Any, /, *, dimension: int, **_: Any) -> Tensor:
        return self._made('Concat', [self.tensor(value) for value in given], shape, dtype, axis=dimension)

    def _slice(
        self, given: list[Value], shape: Any, dtype: Any, /, *, start_indices: Any, limit_indices: Any, strides: Any
    ) -> Tensor:
        x = self.tensor(given[0])
        kept = [axis for axis, size in enumerate(shape) if size != UNKNOWN_SIZE]
        ends = [[int(indices[axis]) for axis in kept] for indices in (start_indices, limit_indices)]
        steps = [1 if strides is None else int(strides[axis]) for axis in kept]
        return self._made('Slice', [x, *map(self._integers, (*ends, kept, steps))], shape, dtype)

    def _pad(self, given: list[Value], shape: Any, dtype: Any, /, *, padding_config: Any, **_: Any) -> Tensor:
        if any(between or min(low, high) < 0 for low, high, between in padding_config):
            raise UserError('padding between elements, or of a negative width, has no form in ONNX here')
        edges = self._integers([low for low, *_ in padding_config] + [high for _, high, _ in padding_config])
        return self._made('Pad', [self.tensor(given[0]), edges, self.tensor(given[1])], shape, dtype, mode='constant')

    def _gather(
        self, given: list[Value], shape: Any, dtype: Any, /, *, dimension_numbers: Any, slice_sizes: Any, **more: Any
    ) -> Tensor:
        """Places of each image that are known, such as every second row: asked of an image of its own numbers."""
        x, indices = given
        known = isinstance(x, Tensor) and isinstance(indices, np.ndarray)
        if not known or not x.shape[0] == shape[0] == UNKNOWN_SIZE:
            raise UserError('only the same places of each image, known ones, can be taken in ONNX here')
        count = int(np.prod(x.shape[1:]))
        numbers = np.arange(count).reshape(1, *x.shape[1:])
        places = jax.lax.gather(
            numbers, np.asarray(indices), dimension_numbers, (1, *slice_sizes[1:]), mode=more['mode']
        )
        flat = self.tensor(self._reshaped(x, (UNKNOWN_SIZE, count)))
        return self._made('Gather', [flat, self.tensor(np.asarray(places, np.int64)[0])], shape, dtype, axis=1)

    def _rev(self, given: list[Value], shape: Any, dtype: Any, /, *, dimensions: Any, **_: Any) -> Tensor:
        x = self.tensor(given[0])
        for axis in dimensions:
            places = self._integers(range(x.shape[axis])[::-1])
            x = self._made('Gather', [x, places], x.shape, dtype, axis=axis)
        return x

    def _dot_general(
        self, given: list[Value], shape: Any, dtype: Any, /, *, dimension_numbers: Any, **_: Any
    ) -> Tensor:
        (left, right), (left_batch, right_batch) = dimension_numbers
        x, y = map(self.tensor, given)
        if (tuple(left), tuple(right)) == ((len(x.shape) - 1,), (0,)) and not left_batch and len(y.shape) == 2:
            return self._made('MatMul', [x, y], shape, dtype)
        letters = iter(string.ascii_letters)
        ours = [next(letters) for _ in x.shape]
        theirs = [''] * len(y.shape)
        for axis, other in (*zip(left, right, strict=True), *zip(left_batch, right_batch, strict=True)):
            theirs[other] = ours[axis]
        theirs = [letter or next(letters) for letter in theirs]
        free = [[v for axis, v in enumerate(own) if axis not in (*a, *b)] for own, a, b in (
            (ours, left, left_batch), (theirs, right, right_batch))]  # fmt: skip
        output_letters = ''.join([ours[axis] for axis in left_batch] + free[0] + free[1])
        equation = f'{"".join(ours)},{"".join(theirs)}->{output_letters}'
        return self._made('Einsum', [x, y], shape, dtype, equation=equation)

    def _conv_general_dilated(
        self, given: list[Value], shape: Any, dtype: Any, /, *, dimension_numbers: Any, padding: Any, **more: Any
    ) -> Tensor:
        if set(more['lhs_dilation']) != {1} or more['batch_group_count'] != 1:
            raise UserError('a transposed convolution has no form in ONNX here')
        x = self._turned(given[0], dimension_numbers.lhs_spec)
        kernel = self._turned(given[1], dimension_numbers.rhs_spec)
        options = {
            'strides': list(more['window_strides']),
            'pads': [low for low, _ in padding] + [high for _, high in padding],
            'dilations': list(more['rhs_dilation']),
            'group': more['feature_group_count'],
        }
        order = dimension_numbers.out_spec
        made = self._made('Conv', [x, kernel], tuple(shape[axis] for axis in order), dtype, **options)
        return self._turned(made, np.argsort(order).tolist())

    def _pooled(self, kind: str, given: list[Value], shape: Any, dtype: Any, parameters: Any, **more: Any) -> Tensor:
        window, strides, padding = (parameters[name] for name in ('window_dimensions', 'window_strides', 'padding'))
        dilated = (*parameters['base_dilation'], *parameters['window_dilation'])
        if len(window) != 4 or {window[0], window[3], strides[0], strides[3], *dilated} != {1}:
            raise UserError('only pooling of images [B, H, W, C] can be written to ONNX here')
        options = {
            'kernel_shape': list(window[1:3]),
            'strides': list(strides[1:3]),
            'pads': [padding[1][0], padding[2][0], padding[1][1], padding[2][1]],
        }
        turned = self._turned(given[0], (0, 3, 1, 2))
        made = self._made(kind, [turned], tuple(shape[axis] for axis in (0, 3, 1, 2)), dtype, **options, **more)
        return self._turned(made, (0, 2, 3, 1))

    def _reduce_window_max(self, given: list[Value], shape: Any, dtype: Any, /, **parameters: Any) -> Tensor:
        return self._pooled('MaxPool', given, shape, dtype, parameters)

    def _reduce_window_sum(self, given: list[Value], shape: Any, dtype: Any, /, **parameters: Any) -> Tensor:
        means = self._pooled('AveragePool', given, shape, dtype, parameters, count_include_pad=1)
        count = np.array(np.prod(parameters['window_dimensions']), dtype)
        return self._made('Mul', [means, self.tensor(count)], shape, dtype)


def broadcast(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape that results from broadcasting two shapes by numpy's rules."""
    rank = max(len(left), len(right))
    left, right = ((1,) * (rank - len(shape)) + shape for shape in (left, right))
    return tuple(b if a == 1 else a for a, b in zip(left, right, strict=True))
