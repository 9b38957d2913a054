"""A .onnx or .tflite file that somebody else made, listed as an export, to be timed beside ours."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from compressor.errors import PocketganError
from compressor.files import atomic, claim_folder, sha256, what_came
from compressor.generators.spec import ImageFormat
from exporters.result import GIVEN, ExportedFile, ExportResult
from exporters.versions import versions

_PRECISIONS = {"float32": "fp32", "float16": "fp16", "int8": "int8", "uint8": "int8"}


def take(file: Path, image: ImageFormat, output: Path, layout: str | None = None) -> ExportResult | None:
    """Put a file into an export folder as it is; there is no PyTorch module to compare it with.

    Args:
        file: .onnx or .tflite, with one picture as its input.
        image: what it takes; a file of free size is timed at the usual size.
        output: the folder; it gets generator-PRECISION.FORMAT and export.json.
        layout: "NCHW" or "NHWC", where it is not what the format usually has.

    Returns:
        The record, or None where the file does not take float32 and so cannot be timed as ours are.

    Raises:
        PocketganError: the file is damaged.
    """
    onnx = file.suffix.lower() == ".onnx"
    try:
        content, plain, constants = _read_onnx(file) if onnx else _read_tflite(file)
    except Exception as error:  # of a file that its runtime opens and whose parts do not fit, nearly anything
        raise PocketganError(
            f"the parts of {file} do not fit together", got=what_came(file, error), fix="export it again"
        ) from error
    if not plain:
        return None
    most = max(constants, key=lambda kind: constants[kind], default="float32")
    precision = _PRECISIONS.get(most, "fp32")
    claim_folder(output, resume=True)
    path = output / f"generator-{precision}{file.suffix.lower()}"
    with atomic(path) as out:
        out.write(content)
    record = ExportedFile(
        file=path.name,
        runtime="onnxruntime" if onnx else "litert",
        precision=precision,
        kind=GIVEN,
        bytes=path.stat().st_size,
        sha256=sha256(path),
        input_layout=layout or ("NCHW" if onnx else "NHWC"),
        dtypes=dict(constants),
        notes=(f"{file.name} as it was given",),
    )
    result = ExportResult(
        folder=output,
        generator={"name": file.name, "sha256": sha256(file), "family": "unknown"},
        input={
            "shape": [1, image.channels[0], *image.size],
            "range": list(image.input_range),
            "output_range": list(image.output_range),
            "scale": image.scale,
        },
        settings={},
        versions=versions(),
        files=(record,),
    )
    result.write()
    return result


def _read_onnx(file: Path) -> tuple[bytes, bool, Counter[str]]:
    """Its bytes, with weights that lie beside it put inside; whether it takes float32; its constants."""
    import onnx

    from exporters.onnx import constant_types

    bare = onnx.load(str(file), load_external_data=False)
    apart = any(c.data_location == onnx.TensorProto.EXTERNAL for c in bare.graph.initializer)
    content = onnx.load(str(file)).SerializeToString() if apart else file.read_bytes()
    weights = {constant.name for constant in bare.graph.initializer}
    entry = next(value for value in bare.graph.input if value.name not in weights)
    plain = entry.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    return content, plain, Counter(constant_types(bare))


def _read_tflite(file: Path) -> tuple[bytes, bool, Counter[str]]:
    from exporters.tflite import constant_types, read

    content = file.read_bytes()
    graph = read(content).subgraphs[0]
    return content, graph.tensors[int(graph.inputs[0])].type == 0, Counter(constant_types(content))
