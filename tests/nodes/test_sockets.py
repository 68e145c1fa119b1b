"""Literals where links belong, for every socket of every node, through the API: one sentence that names the socket."""

from tests.support.graphs import models, node

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
LITERALS = ["abc" * 100, 5, {}, True, 0.5, {"samples": 1, "waveform": [1]}]
LINKS = {
    "MODEL": ["experts", 0],
    "CLIP": ["clip", 0],
    "VAE": ["vae", 0],
    "CONDITIONING": ["text", 0],
    "LATENT": ["latent", 0],
    "IMAGE": ["image", 0],
    "MASK": ["mask", 0],
    "AUDIO": ["audio", 0],
}
PARTS = models("t2v-a14b") | {
    "latent": node("Wan22EmptyLatent", width=48, height=32, length=9, batch_size=1, family="A14B"),
    "image": node("EmptyImage", width=48, height=32, batch_size=1, color=0),
    "mask": node("SolidMask", value=1.0, width=48, height=32),
    "audio": node("EmptyAudio", duration=1.0, sample_rate=44100, channels=2),
}


def sockets(server):
    """(node, what its required widgets are set to, sockets that must be linked, socket → its type) of every node."""
    for kind, schema in server.get("/object_info").items():
        if not kind.startswith("Wan22") or schema["python_module"].startswith("comfy_extras"):
            continue
        required, optional = schema["input"].get("required", {}), schema["input"].get("optional", {})
        types = {name: spec[0] for name, spec in (required | optional).items() if spec[0] not in WIDGETS}
        values = {
            name: options.get("default", (options.get("options") or [0])[0])
            for name, (kind_of, options) in required.items()
            if kind_of in WIDGETS
        }
        yield kind, values, [name for name in types if name in required], types


def test_a_literal_in_a_socket_ends_in_one_sentence(server):
    tried = 0
    for kind, values, required, types in sockets(server):
        for number, (socket, io_type) in enumerate(types.items()):
            literal = LITERALS[(tried + number) % len(LITERALS)]
            links = {name: LINKS[types[name]] for name in required}
            wrong = node(kind, **{**values, **links, socket: literal})
            said = server.error(PARTS | {"wrong": wrong, "shown": node("PreviewAny", source=["wrong", 0])})
            assert said.startswith(f"{socket} is ") and f" {io_type}. Connect the output" in said, (kind, socket, said)
            assert len(said) < 250 and "Traceback" not in said, said
            tried += 1
    assert tried > 30


def test_what_is_required_may_not_be_null(server):
    wrong = node("Wan22VAEDecode", samples=["latent", 0], vae=None, tile_size=0, overlap=64)
    said = server.error(PARTS | {"wrong": wrong, "shown": node("PreviewAny", source=["wrong", 0])})
    assert said.startswith("vae is empty. Needed: a VAE.")
