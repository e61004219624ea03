"""What can be wrong, and the sentence with which each command refuses it; `test_refusals` runs them all."""

from dataclasses import dataclass
from pathlib import Path

from intents.manifest import FORMAT
from intents.store import use_version
from tests.server.cli.site import Damage, Site, add_version, both, flipped, folder, holding, missing, truncated

NOWHERE = r"make it with `faqwire export \[MODEL\] -o var/model`"
AGAIN = "build it again with `faqwire build FAQ -o var/index`"


@dataclass(frozen=True)
class Case:
    """One thing that is wrong, the command that meets it, and a pattern of its sentence."""

    command: str
    says: str
    damage: Damage = lambda _: None


def other_model(root: Path) -> None:
    """The index was built with another model."""
    site = Site(root)
    use_version(site.index, add_version(site, "other", model="other/model", model_fingerprint="0" * 64).name)


def old_version(root: Path) -> None:
    """The index has another version, which is not current."""
    add_version(Site(root), "old")


def lost_version(root: Path) -> None:
    """The current version's folder is gone, and the link is still there."""
    missing(f"var/index/{(root / 'var/index/current').readlink()}")(root)


EXPORT = {
    "no such folder": Case("export ./nowhere -o new", "there is no folder ./nowhere"),
    "no such model, and no network": Case("export nobody/nothing -o new", "the Hugging Face hub cannot be reached"),
    "an empty file": Case("export empty -o new", "empty is a file; name the model's folder", holding("empty")),
    "an empty folder": Case("export model -o new", "model is not a model: it has no config.json", folder("model")),
    "an empty config": Case(
        "export model -o new", "config.json cannot be read", both(folder("model"), holding("model/config.json"))
    ),
    "no weights": Case(
        "export model -o new",
        "has no weights in safetensors",
        both(folder("model"), holding("model/config.json", "{}")),
    ),
    "no tokenizer": Case(
        "export model -o new",
        "has no tokenizer.json",
        both(folder("model"), holding("model/config.json", "{}"), holding("model/model.safetensors")),
    ),
    "a foreign folder in the way": Case("export -o var", "var exists and was not made by faqwire"),
    "a file in the way": Case("export -o faq.yaml", "faq.yaml exists and was not made by faqwire"),
    "a file as parent": Case("export -o faq.yaml/model", r"faq\.yaml/model cannot be written"),
}

BUILD = {
    "no such FAQ": Case("build nowhere.yaml", "nowhere.yaml: does not exist; name a FAQ file"),
    "an empty FAQ": Case("build faq.yaml", "faq.yaml: is empty; a FAQ has a list of entries", holding("faq.yaml")),
    "a truncated FAQ": Case("build faq.yaml", r"faq\.yaml:\d+: is not valid YAML", truncated("faq.yaml")),
    "a name that no file can have": Case("build " + "x" * 300 + ".yaml", "File name too long"),
    "an empty folder": Case("build faqs", "faqs: has no .yaml file", folder("faqs")),
    "an empty CSV": Case("build faq.csv", "faq.csv: is empty; a header row is expected", holding("faq.csv")),
    "some other file": Case("build faq.docx", "faq.docx: is not a FAQ by its name", holding("faq.docx")),
    "no model": Case(
        "build faq.yaml", f"var/model is not a model bundle: it does not exist; {NOWHERE}", missing("var/model")
    ),
    "an empty manifest": Case(
        "build faq.yaml", f"bundle.json is damaged .*{NOWHERE}", holding("var/model/bundle.json")
    ),
    "a truncated manifest": Case("build faq.yaml", "bundle.json is damaged", truncated("var/model/bundle.json")),
    "one byte of the tokenizer": Case(
        "build faq.yaml", f"tokenizer.json is damaged: .*{NOWHERE}", flipped("var/model/tokenizer.json")
    ),
    "one byte of the weights": Case(
        "build faq.yaml", "model.fp32.onnx is damaged", flipped("var/model/model.fp32.onnx")
    ),
    "a truncated variant": Case("build faq.yaml", "model.int8.onnx is damaged", truncated("var/model/model.int8.onnx")),
    "no cross-encoder": Case(
        "build faq.yaml --cross-encoder var/cross", r"var/cross is not a model bundle: .* -o var/cross`"
    ),
    "a bi-encoder as cross-encoder": Case(
        "build faq.yaml --cross-encoder var/model", "var/model is a bi-encoder and a cross-encoder is needed"
    ),
    "a foreign folder in the way": Case("build faq.yaml -o var", "var holds other files and is not a FAQ index"),
    "a file in the way": Case("build faq.yaml -o messages.csv", "messages.csv is a file and not a FAQ index"),
    "no such settings": Case("build faq.yaml --config x.toml", "x.toml does not exist; name a settings file"),
}

SERVE = {
    "no model": Case(
        "serve --port 0", f"var/model is not a model bundle: it does not exist; {NOWHERE}", missing("var/model")
    ),
    "no manifest of the model": Case("serve --port 0", "it has no bundle.json", missing("var/model/bundle.json")),
    "no variant": Case("serve --port 0", "model.int8.onnx is missing", missing("var/model/model.int8.onnx")),
    "an empty tokenizer": Case("serve --port 0", "tokenizer.json is damaged", holding("var/model/tokenizer.json")),
    "one byte of the manifest": Case(
        "serve --port 0", "bundle.json (is damaged|was changed)", flipped("var/model/bundle.json")
    ),
    "one byte of the tokenizer": Case(
        "serve --port 0", "tokenizer.json is damaged", flipped("var/model/tokenizer.json")
    ),
    "one byte of the weights": Case(
        "serve --port 0", "model.int8.onnx is damaged", flipped("var/model/model.int8.onnx")
    ),
    "no index": Case("serve --port 0", "var/index does not exist; build it with", missing("var/index")),
    "an empty folder as index": Case(
        "serve --port 0 --index home", "home is not a FAQ index: it has no current version"
    ),
    "no current version": Case("serve --port 0", f"it has no current version; {AGAIN}", missing("var/index/current")),
    "a lost version": Case("serve --port 0", "has lost its current version .* `faqwire index use`", lost_version),
    "an empty manifest of the index": Case(
        "serve --port 0", f"manifest.json is damaged .*{AGAIN}", holding("var/index/current/manifest.json")
    ),
    "one byte of the index's manifest": Case(
        "serve --port 0", r"manifest.json (is damaged|was changed)", flipped("var/index/current/manifest.json")
    ),
    "a later format": Case(
        "serve --port 0",
        f"has format 99 and this faqwire reads up to {FORMAT}: upgrade faqwire",
        holding("var/index/current/manifest.json", '{"format": 99}'),
    ),
    **{
        f"truncated {name}": Case(
            "serve --port 0", f"{name} is damaged: .*{AGAIN}", truncated(f"var/index/current/{name}")
        )
        for name in ("items.ann", "vectors.npy", "owners.npy", "heads.npy", "faq.json")
    },
    "a missing file of the index": Case(
        "serve --port 0", "items.ann is missing", missing("var/index/current/items.ann")
    ),
    "an index of another model": Case(
        "serve --port 0", r"built with another model \(other/model\) than the one in var/model; build it", other_model
    ),
    "a short secret": Case(
        "serve --port 0",
        "token_key: secret has 1 bytes; HS256 needs 32 or more",
        both(holding("faqwire.toml", 'token_key = "secret"'), holding("secret", "x")),
    ),
    "no certificate": Case(
        "serve --port 0",
        r"tls_certificate site.pem and tls_key site.key cannot be used \(No such file or directory\)",
        holding("faqwire.toml", 'tls_certificate = "site.pem"\ntls_key = "site.key"'),
    ),
    "no such address": Case("serve --port 0 --host 192.0.2.1", "host '192.0.2.1' is not an address of this machine"),
    "no such settings": Case("serve --config x.toml", "x.toml does not exist; name a settings file"),
    "an unknown setting": Case(
        "serve", r"faqwire.toml: prot: .* did you mean port\?", holding("faqwire.toml", "prot = 1")
    ),
}

ASK = {
    "nobody there": Case(
        "ask hi --url ws://127.0.0.1:1/", "cannot reach ws://127.0.0.1:1/ .*`faqwire serve` starts one"
    ),
    "not UTF-8": Case("ask wo\udcff", "the question is not UTF-8"),
    "no address": Case("ask hi --url localhost", "localhost is not a faqwire server"),
    "no model": Case("ask hi", f"var/model is not a model bundle: .*{NOWHERE}", missing("var/model")),
    "one byte of the tokenizer": Case("ask hi", "tokenizer.json is damaged", flipped("var/model/tokenizer.json")),
    "no index": Case("ask hi", "var/index does not exist; build it with", missing("var/index")),
    "a truncated index": Case("ask hi", f"items.ann is damaged: .*{AGAIN}", truncated("var/index/current/items.ann")),
    "no such settings": Case("ask hi --config x.toml", "x.toml does not exist"),
}

LABELLED = "eval --faq faq.yaml --messages messages.csv"
EVAL = {
    "no such FAQ": Case("eval --faq x.yaml --messages messages.csv", "x.yaml: does not exist"),
    "an empty FAQ": Case(LABELLED, "faq.yaml: is empty", holding("faq.yaml")),
    "no such messages": Case("eval --faq faq.yaml --messages x.csv", "x.csv: does not exist"),
    "no messages": Case(LABELLED, "messages.csv: is empty; a header row is expected", holding("messages.csv")),
    "only a header": Case(LABELLED, "messages.csv: has no messages", holding("messages.csv", "text,expected\n")),
    "other columns": Case(
        LABELLED, "`text,expected` or `text,intent` are needed", holding("messages.csv", "a,b\n1,2\n")
    ),
    "an unknown entry": Case(
        LABELLED, "messages.csv:2: expected: 'nope' is no entry", holding("messages.csv", "text,expected\nhi,nope\n")
    ),
    "no model": Case(LABELLED, f"var/model is not a model bundle: .*{NOWHERE}", missing("var/model")),
    "one byte of the weights": Case(LABELLED, "model.fp16.onnx is damaged", flipped("var/model/model.fp16.onnx")),
    "no cross-encoder": Case(LABELLED + " --cross-encoder var/cross", "var/cross is not a model bundle"),
    "no such settings": Case(LABELLED + " --config x.toml", "x.toml does not exist"),
    "nothing to leave out": Case(
        "eval --faq faq.yaml",
        "no entry of the FAQ has two phrasings, so none can be left out and asked; add some, or name --messages",
        holding("faq.yaml", "entries:\n- id: a\n  question: b\n  answer: c\n"),
    ),
    "no such index": Case("eval --index new --messages messages.csv", "new does not exist; build it with"),
    "no such index to compare with": Case(LABELLED + " --against new", "new does not exist; build it with"),
    "an index of another model to compare with": Case(
        LABELLED + " --against var/index", r"var/index was built with another model \(other/model\)", other_model
    ),
    "a folder as report": Case(LABELLED + " --report home", "home is a folder; name a file for the report"),
    "no folder for the report": Case(
        LABELLED + " --report new/report.html", "new/report.html cannot be written: there is no folder new"
    ),
}

INDEX = {
    "list: no index": Case("index list", "var/index is not a FAQ index; build one", missing("var/index")),
    "list: no such settings": Case("index list --config x.toml", "x.toml does not exist"),
    "use: no index": Case("index use x", "var/index has no version x", missing("var/index")),
    "use: no such version": Case("index use x", "has no version x; `faqwire index list --index var/index` shows"),
    "use: not a version": Case("index use ../versions", "has no version ../versions"),
    "use: a truncated version": Case(
        "index use old",
        f"items.ann is damaged: .*{AGAIN}",
        both(old_version, truncated("var/index/versions/old/items.ann")),
    ),
    "prune: no index": Case("index prune", "var/index is not a FAQ index", missing("var/index")),
    "prune: a truncated current version": Case(
        "index prune --keep 0",
        f"items.ann is damaged: .*{AGAIN}",
        both(old_version, truncated("var/index/current/items.ann")),
    ),
    "prune: no current version": Case("index prune --keep 0", "has no current version", missing("var/index/current")),
}

DOCTOR = {"no such settings": Case("doctor --config x.toml", "x.toml does not exist")}

# What `doctor` finds wrong: it is what it was asked for, and so stands on standard output among what is right.
SICK = {
    "no model": ("model: var/model is not a model bundle: it does not exist", missing("var/model")),
    "one byte of the tokenizer": ("model: var/model/tokenizer.json is damaged", flipped("var/model/tokenizer.json")),
    "no index": ("index: var/index does not exist; build it with", missing("var/index")),
    "a truncated index": ("index: .*items.ann is damaged", truncated("var/index/current/items.ann")),
    "an empty manifest": ("index: .*manifest.json is damaged", holding("var/index/current/manifest.json")),
    "an index of another model": ("index: .* was built with another model", other_model),
}
