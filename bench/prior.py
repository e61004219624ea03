"""Measure what is assumed of FAQs that are too small to be calibrated on themselves.

    python -m bench.prior FAQ.yaml ... --cross-encoder var/cross-encoder [-o intents/data/prior.json]

The FAQs should be those that the cross-encoder was not trained on: `training.json` beside an adapter names them. Each
is cut down to its questions and answers; its other phrasings and the answerable messages of `NAME_messages.csv` are put
to it as messages in scope, the others as near out of scope, and a sample of the shipped out-of-scope set as far ones.
The weights are those with which most messages find their entry, as a build chooses them.
"""

import argparse
from pathlib import Path

import msgspec
import numpy as np

from export.bundle import open_bundle
from export.runtime.bi_encoder import BiEncoder
from export.runtime.cross_encoder import CrossEncoder
from export.runtime.session import CPU, Device
from intents.build import SHIPPED_OUT_OF_SCOPE
from intents.formats import load_faq
from intents.groups import Miner
from intents.holdout import Posed
from intents.labelled import Labelled, read_labelled, read_out_of_scope
from intents.prior import SHIPPED_PRIOR, Case, Prior
from intents.weighing import WEIGHTS, best_weights
from server.cores import usable_cores

FAR, READ, SEED = 40, 5, 1

Asked = tuple[Posed, Miner]
"""A message with its candidates, and who found them."""


def main() -> None:
    """Put messages to small FAQs, and write how they fared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faqs", type=Path, nargs="+", help="YAML files, each with its _messages.csv beside it")
    parser.add_argument("--cross-encoder", type=Path, required=True, help="bundle of the cross-encoder")
    parser.add_argument("--model", type=Path, default=Path("var/model"), help="bundle of the bi-encoder")
    parser.add_argument("--pair-tokens", type=int, default=64, help="most tokens of a pair")
    parser.add_argument("-o", "--output", type=Path, default=SHIPPED_PRIOR)
    options = parser.parse_args()
    encoder = BiEncoder(open_bundle(options.model, kind="bi-encoder"), "fp32", Device(CPU), threads=usable_cores())
    bundle = open_bundle(options.cross_encoder, kind="cross-encoder")
    reader = CrossEncoder(bundle, "fp32", Device(CPU), max_tokens=options.pair_tokens, threads=usable_cores())
    shipped, chance = read_out_of_scope(SHIPPED_OUT_OF_SCOPE), np.random.default_rng(SEED)
    by_weights = {weights: _nobody() for weights in WEIGHTS}
    for path in options.faqs:
        print(path.name)
        faq = load_faq(path).faq
        labelled, _ = read_labelled(path.with_name(f"{path.stem}_messages.csv"), {entry.id for entry in faq.entries})
        asked = [Labelled(text, entry.id) for entry in faq.entries for text in entry.phrasings]
        far = [Labelled(shipped[i], None) for i in chance.permutation(len(shipped))[:FAR]]
        small = msgspec.structs.replace(
            faq, entries=tuple(msgspec.structs.replace(entry, phrasings=()) for entry in faq.entries)
        )
        kinds = (
            [*asked, *(one for one in labelled if one.expected is not None)],
            [one for one in labelled if one.expected is None],
            far,
        )
        for weights, kept in by_weights.items():
            miner = Miner(small, encoder, weights=weights)
            for one, messages in zip(kept, kinds, strict=True):
                one.extend((posed, miner) for posed in miner.pose(messages))
    weights = best_weights(
        {one: np.array([_place(posed) == 0 for posed, _ in kinds[0]]) for one, kinds in by_weights.items()}
    )
    in_scope, near, far_ones = (tuple(_cases(asked, reader)) for asked in by_weights[weights])
    prior = Prior(
        faqs=len(options.faqs),
        model_fingerprint=encoder.bundle.manifest.fingerprint,
        confirmer_fingerprint=bundle.manifest.fingerprint,
        pair_tokens=reader.max_tokens,
        weights=weights,
        in_scope=in_scope,
        near=near,
        far=far_ones,
    )
    draft = options.output.with_name(f".{options.output.name}")
    draft.write_bytes(msgspec.json.encode(prior))
    draft.replace(options.output)
    top = sum(case.right == 0 for case in in_scope) / len(in_scope)
    print(f"{len(in_scope):,} in scope ({top:.1%} first), {len(near):,} near, {len(far_ones):,} far; {weights}")


def _nobody() -> tuple[list[Asked], list[Asked], list[Asked]]:
    """Messages in scope, near and far: none yet."""
    return [], [], []


def _place(posed: Posed) -> int | None:
    """Where the right candidate stands; -1 where it does not, None where there is none."""
    entries = [candidate.entry for candidate in posed.candidates]
    return None if posed.expected is None else entries.index(posed.expected) if posed.expected in entries else -1


def _cases(asked: list[Asked], reader: CrossEncoder) -> list[Case]:
    """Messages as figures."""
    pairs = [[(posed.text, one.text()) for one in miner.shown(posed)[:READ]] for posed, miner in asked]
    logits = reader.score([pair for own in pairs for pair in own])
    ends = np.cumsum([len(own) for own in pairs])[:-1]
    return [
        Case(
            tuple(round(one.score, 4) for one in posed.candidates),
            tuple(round(one.evidence, 4) for one in posed.candidates),
            tuple(round(float(logit), 3) for logit in own),
            _place(posed),
        )
        for (posed, _), own in zip(asked, np.split(logits, ends), strict=True)
    ]


if __name__ == "__main__":
    main()
