"""Change a LiteRT file through the object interface of its schema: store kernels smaller, and dequantise them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.rotation import ROTATED, Rotation

_ALIGNMENT = 16
"""Constants begin at multiples of so many bytes, as the schema asks."""

_MOST = 127
"""The largest int8 that is used: the range is symmetric."""


class LiteRTEditor:
    """A LiteRT file of one graph, whose kernels are replaced by smaller ones that are dequantised before use.

    Each becomes float16, or int8 with a scale for each output. An int8 kernel of a dense layer is for rotated inputs
    (`models.rotation`): the graph rotates the layer's input.
    """

    def __init__(self, content: bytes) -> None:
        from ai_edge_litert import schema_py_generated

        self._schema = schema_py_generated
        self._model = self._schema.ModelT.InitFromPackedBuf(content, 0)
        (self._graph,) = self._model.subgraphs
        self._before: dict[int, list[Any]] = {}  # new operations, by the identity of the one that they precede
        self._rotations: dict[int, tuple[int, int]] = {}  # size -> tensors of the matrix and of a bias of zeros

    def kernels(self) -> Iterator[tuple[Any, NDArray[np.float32]]]:
        """Yield the dense layers and convolutions with their kernels, output first; equal ones may be one tensor."""
        codes = self._schema.BuiltinOperator
        for operation in self._graph.operators:
            if self._model.operatorCodes[operation.opcodeIndex].builtinCode in {codes.FULLY_CONNECTED, codes.CONV_2D}:
                tensor = self._graph.tensors[operation.inputs[1]]
                data = self._model.buffers[tensor.buffer].data
                if data is not None and tensor.type == self._schema.TensorType.FLOAT32:
                    yield operation, np.frombuffer(data, np.float32).reshape(tensor.shape)

    def store_smaller(
        self,
        operation: Any,  # noqa: ANN401 (OperatorT)
        kernel: NDArray[np.float32],
        name: str,
        factor: float,
        *,
        precise: bool,
    ) -> None:
        """Replace the kernel of an operation by a smaller one of this name, which is dequantised before it.

        Args:
            operation: one of `kernels`.
            kernel: what to store, output first.
            name: of the checkpoint's array.
            factor: what to multiply the operation's input by.
            precise: whether to store float16.
        """
        new = self._before.setdefault(id(operation), [])
        if factor != 1:
            new.append(self._scale_input(operation, factor, f"{name}/inputs_times_factor"))
        if precise:
            stored, version = self._constant(name, kernel.astype(np.float16)), 3
        else:
            rotation = Rotation.of(kernel.shape[1] if kernel.ndim == 2 else 1)
            if (size := len(rotation.matrix)) > 1:
                new += self._rotate_input(operation, rotation.matrix, name)
                kernel, name = rotation.rotate(kernel).astype(np.float32), f"{name}{ROTATED}{size}"
            values, scales = _round(kernel)
            stored, version = self._constant(name, values), 5
            quantization = self._schema.QuantizationParametersT()
            quantization.scale, quantization.zeroPoint = scales, np.zeros(len(scales), np.int64)
            self._graph.tensors[stored].quantization = quantization
        new.insert(0, self._operation("Dequantize", version, [stored], self._free_kernel(operation)))

    def _free_kernel(self, operation: Any) -> int:  # noqa: ANN401 (OperatorT)
        """Drop the values of an operation's kernel, and return the tensor to compute it in."""
        source, number, *others = operation.inputs
        tensor = self._graph.tensors[number]
        if tensor.buffer == 0:  # another operation had the same kernel
            number = self._tensor(
                f"{tensor.name.decode()}/{len(self._graph.tensors)}", tuple(tensor.shape), "float32", 0
            )
            operation.inputs = [source, number, *others]
        else:
            self._model.buffers[tensor.buffer].data, tensor.buffer = None, 0
        return int(number)

    def pack(self) -> bytes:
        """Return the content of the changed file."""
        import flatbuffers

        operations = self._graph.operators
        self._graph.operators = [one for old in operations for one in (*self._before.get(id(old), ()), old)]
        self._model.buffers = [_aligned(self._schema, buffer) for buffer in self._model.buffers]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _rotate_input(self, layer: Any, matrix: NDArray[np.float32], name: str) -> list[Any]:  # noqa: ANN401 (OperatorT)
        """Let a dense layer read its input rotated, and return the operations that rotate it."""
        size, source = len(matrix), layer.inputs[0]
        if size not in self._rotations:
            constants = self._constant(f"rotation_{size}", matrix), self._constant("zeros", np.zeros(size, np.float32))
            self._rotations[size] = constants
        inputs = self._graph.tensors[source].shape[-1]
        blocks = self._like(source, f"{name}/inputs_in_blocks", size)
        rotated = self._like(source, f"{name}/blocks_times_rotation", size)
        whole = self._like(source, f"{name}/inputs_times_rotation", inputs)
        dense = self._schema.OperatorT()
        dense.opcodeIndex, dense.inputs, dense.outputs = layer.opcodeIndex, [blocks, *self._rotations[size]], [rotated]
        dense.builtinOptionsType = self._schema.BuiltinOptions.FullyConnectedOptions
        dense.builtinOptions = self._schema.FullyConnectedOptionsT()
        layer.inputs = [whole, *layer.inputs[1:]]
        return [self._reshape(source, blocks, size), dense, self._reshape(rotated, whole, inputs)]

    def _scale_input(self, layer: Any, factor: float, name: str) -> Any:  # noqa: ANN401 (OperatorT)
        source = layer.inputs[0]
        scaled = self._like(source, name, self._graph.tensors[source].shape[-1])
        layer.inputs = [scaled, *layer.inputs[1:]]
        return self._operation("Mul", 1, [source, self._constant("factor", np.array(factor, np.float32))], scaled)

    def _reshape(self, source: int, target: int, columns: int) -> Any:  # noqa: ANN401 (OperatorT)
        shape = np.array([-1, columns], np.int32)
        operation = self._operation("Reshape", 1, [source, self._constant("shape", shape)], target)
        operation.builtinOptions.newShape = shape
        return operation

    def _operation(self, name: str, version: int, inputs: Sequence[int], output: int) -> Any:  # noqa: ANN401 (OperatorT)
        operation = self._schema.OperatorT()
        operation.opcodeIndex = self._code(getattr(self._schema.BuiltinOperator, name.upper()), version)
        operation.inputs, operation.outputs = [*inputs], [output]
        operation.builtinOptionsType = getattr(self._schema.BuiltinOptions, f"{name}Options")
        operation.builtinOptions = getattr(self._schema, f"{name}OptionsT")()
        return operation

    def _code(self, builtin: int, version: int) -> int:
        codes = self._model.operatorCodes
        for index, code in enumerate(codes):
            if (code.builtinCode, code.version) == (builtin, version):
                return index
        new = self._schema.OperatorCodeT()
        new.builtinCode = new.deprecatedBuiltinCode = builtin
        new.version = version
        codes.append(new)
        return len(codes) - 1

    def _constant(self, name: str, values: NDArray[Any]) -> int:
        buffer = self._schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        return self._tensor(name, values.shape, values.dtype.name, len(self._model.buffers) - 1)

    def _like(self, source: int, name: str, columns: int) -> int:
        """Add a tensor with the elements of another one `[rows, inputs]`, whose rows are free, in so many columns."""
        rows, inputs = self._graph.tensors[source].shape
        number = self._tensor(name, (rows * inputs // columns, columns), "float32", 0)
        self._graph.tensors[number].shapeSignature = np.array([-1, columns], np.int32)
        return number

    def _tensor(self, name: str, shape: tuple[int, ...], dtype: str, buffer: int) -> int:
        tensor = self._schema.TensorT()
        tensor.name, tensor.shape, tensor.hasRank = name, np.array(shape, np.int32), True
        tensor.type, tensor.buffer = getattr(self._schema.TensorType, dtype.upper()), buffer
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1


def _round(kernel: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return a kernel, outputs first, as int8, and the scale of each output."""
    scales = (np.abs(kernel).max(axis=tuple(range(1, kernel.ndim)), keepdims=True) / _MOST).astype(np.float32)
    scales[scales == 0] = 1  # of zeros
    return np.clip(np.rint(kernel / scales), -_MOST, _MOST).astype(np.int8), scales.reshape(-1)


def _aligned(schema: Any, buffer: Any) -> Any:  # noqa: ANN401 (BufferT)
    """Return a buffer that is written where the schema asks; its own object interface aligns bytes as bytes."""

    class Aligned(schema.BufferT):  # type: ignore[misc]
        def Pack(self, builder: Any) -> Any:  # noqa: ANN401, N802 (of the schema)
            if self.data is not None:
                builder.Prep(_ALIGNMENT, len(self.data))
            return super().Pack(builder)

    aligned = Aligned()
    aligned.data, aligned.offset, aligned.size = buffer.data, buffer.offset, buffer.size
    return aligned
