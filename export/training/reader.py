"""A model that reads messages with their candidates in torch: pairs of texts to logits."""

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.errors import TrainingError
from export.training.draw import Drawn


class Reader:
    """Runs a model on the device that is there.

    Args:
        model: a PEFT model with one logit; it is moved to the device.
        tokenizer: its tokenizer's file.
        pair_tokens: most tokens of a pair, special ones included; pairs are cut as a server cuts them.

    Raises:
        TrainingError: the file is not a tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Path, pair_tokens: int) -> None:
        import torch
        from tokenizers import Tokenizer

        self._torch = torch
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = model.to(self.device)
        self._inputs = inspect.signature(model.get_base_model().forward).parameters
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer))
        except Exception as exc:  # tokenizers raises bare Exception
            raise TrainingError(f"{tokenizer} cannot be read as a tokenizer: {exc}") from exc
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(pair_tokens, strategy="longest_first")

    def read(self, drawn: Sequence[Drawn], batch_size: int) -> list[npt.NDArray[np.float32]]:
        """The logits of messages with their candidates, without learning.

        Args:
            drawn: any number of them.
            batch_size: how many to read at a time.

        Returns:
            For each (texts,) float32.
        """
        self.model.eval()
        logits: list[npt.NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * len(drawn)
        order = sorted(range(len(drawn)), key=lambda i: -drawn[i].length())
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            with self._torch.inference_mode():
                flat = self.logits([drawn[i] for i in chosen]).float().cpu().numpy()
            ends = np.cumsum([len(drawn[i].texts) for i in chosen])[:-1]
            for i, one in zip(chosen, np.split(flat, ends), strict=True):
                logits[i] = one
        return logits

    def logits(self, batch: Sequence[Drawn]) -> Any:
        """The logits of a batch as one tensor: the first message's candidates, then the second's, and so on."""
        torch = self._torch
        encoded = self._tokenizer.encode_batch([(drawn.message, text) for drawn in batch for text in drawn.texts])
        shape = (len(encoded), max(len(one.ids) for one in encoded))
        ids, types, mask = (torch.zeros(shape, dtype=torch.long) for _ in range(3))
        for row, one in enumerate(encoded):
            ids[row, : len(one.ids)] = torch.tensor(one.ids)
            types[row, : len(one.ids)] = torch.tensor(one.type_ids)
            mask[row, : len(one.ids)] = 1
        inputs = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
        with self._precision():
            taken = {name: value.to(self.device) for name, value in inputs.items() if name in self._inputs}
            return self.model(**taken).logits[:, 0]

    def _precision(self) -> AbstractContextManager[Any]:
        """bfloat16 where the device is quicker with it."""
        quick = self.device == "cuda" or _has_bf16()
        return self._torch.autocast(self.device, dtype=self._torch.bfloat16) if quick else nullcontext()


def _has_bf16() -> bool:
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())  # noqa: SLF001
