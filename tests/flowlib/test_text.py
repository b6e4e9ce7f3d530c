"""Text: words as numbers and back, what the encoder lets padding do, and encoders of transformers as ours."""

import pytest
import torch
from torch import Generator

from flowlib.text import CLIPText, Text, TextEncoder, Tokenizer

WORDS = ("a", "red", "blue", "circle", "square", "and")
TOKENIZER = Tokenizer(WORDS, 5)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def encoder(**options) -> TextEncoder:
    return TextEncoder(
        len(TOKENIZER), 5, 16, **({"heads": 2, "depth": 2, "generator": generator()} | options)
    )


# Words


def test_decoding_inverts_encoding():
    texts = ["a red circle", "", "square", "a circle and a square"]
    tokens = TOKENIZER(texts)
    assert tokens.shape == (4, 5) and tokens.dtype == torch.int64
    assert TOKENIZER.decode(tokens) == texts
    assert tokens[1].tolist() == [0] * 5 and tokens[3].tolist() == [1, 4, 6, 1, 5]
    assert len(TOKENIZER) == 7
    assert TOKENIZER([]).shape == (0, 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a red cirlce", "'cirlce' is not among the 6 words; the nearest is 'circle'"),
        ("a circle and a red square", "has 6 words, at most 5 fit"),
    ],
)
def test_what_cannot_be_encoded_is_told_why(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        TOKENIZER([text])


@pytest.mark.parametrize("words", [("a", "a"), ("a b",), ("",)])
def test_words_that_could_not_be_told_apart_are_refused(words: tuple[str, ...]):
    with pytest.raises(ValueError, match="words must differ"):
        Tokenizer(words, 5)


# Our encoder


def test_the_pooled_vector_is_the_mean_over_words():
    said = encoder()(TOKENIZER(["a red circle", "square", ""]))
    assert [tuple(x.shape) for x in said] == [(3, 5, 16), (3, 16), (3, 5)]
    torch.testing.assert_close(said.pooled[0], said.sequence[0, :3].mean(0))
    torch.testing.assert_close(said.pooled[1], said.sequence[1, 0])
    assert torch.equal(said.pooled[2], torch.zeros(16))
    assert said.mask.sum(1).tolist() == [3, 1, 0]


def test_the_order_of_words_matters_and_other_texts_do_not():
    net = encoder()
    both = net(TOKENIZER(["red circle", "circle red"]))
    assert (both.pooled[0] - both.pooled[1]).abs().max() > 0.01
    for k, text in enumerate(("red circle", "circle red")):
        torch.testing.assert_close(net(TOKENIZER([text])).sequence[0], both.sequence[k])


def test_every_token_hears_every_other():
    net, tokens = encoder().double(), TOKENIZER(["a red circle"])
    words = net.words[tokens].detach().requires_grad_()
    h = words + net.positions
    for layer in net.layers:
        h = layer(h)
    reached = [torch.autograd.grad(h[0, k].square().sum(), words, retain_graph=True)[0] for k in range(5)]
    assert all(float(gradient[0].norm(dim=1).min()) > 1e-6 for gradient in reached)


def test_weights_come_from_the_generator():
    first, again, other = (encoder(generator=generator(seed)).words for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (TypeError, "tokens must be integers", lambda: encoder()(torch.zeros(2, 5))),
        (ValueError, r"\(B, 5\), got \(2, 4\)", lambda: encoder()(torch.zeros(2, 4, dtype=torch.long))),
        (ValueError, "multiple of heads, got 16 and 3", lambda: encoder(heads=3)),
        (ValueError, "depth=0", lambda: encoder(depth=0)),
    ],
)
def test_bad_input_is_told_what_was_expected(error: type[Exception], match: str, call):
    with pytest.raises(error, match=match):
        call()


# CLIP


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("projected", [False, True])
def test_a_clip_is_an_encoder(projected: bool):
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPTextConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=7,
        projection_dim=8,
        bos_token_id=48,
        eos_token_id=49,
    )
    with torch.random.fork_rng():
        made = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
        net = CLIPText(made(config))
    tokens = torch.tensor([[48, 5, 6, 49, 0, 0, 0], [48, 7, 8, 9, 10, 11, 49]])
    said = net(tokens, (tokens != 0).long())
    assert isinstance(said, Text)
    assert [tuple(x.shape) for x in said] == [(2, 7, 16), (2, 8 if projected else 16), (2, 7)]
    assert said.mask.dtype == torch.bool and said.mask.sum(1).tolist() == [4, 7]
    shorter = net(tokens[:1, :4])
    torch.testing.assert_close(said.pooled[:1], shorter.pooled)  # padding is not heard
    torch.testing.assert_close(said.sequence[:1, :4], shorter.sequence)
    layers = (
        net.model.text_model.encoder.layers if hasattr(net.model, "text_model") else net.model.encoder.layers
    )
    heard = []
    handle = layers[-1].register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    sequence = net(tokens).sequence
    handle.remove()
    assert torch.equal(sequence, heard[0])  # what the last layer is given
    assert not any(p.requires_grad for p in net.parameters()) and not net.model.training
