"""Networks of torchvision, timm and transformers, made small by their own arguments, with random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any

import pytest
import torch
import torchvision.models as tv
from torch import Tensor, nn
from torchvision.models import (
    convnext,
    densenet,
    efficientnet,
    mobilenetv3,
    regnet,
    resnet,
    swin_transformer,
    vgg,
)

import cpath

CLASSES = 5

# torchvision.models has functions of the same names.
googlenet = import_module("torchvision.models.googlenet")
inception = import_module("torchvision.models.inception")


@dataclass(frozen=True)
class Architecture:
    """A small network with what a user says about its sites and units.

    Attributes:
        build: Makes the network.
        sites: The argument ``sites``.
        functions: The same by hand: functions of torch.nn.functional that the network calls, and
        classes: classes of modules, with what their sites' names end with.
        unit: The argument ``unit``, and
        axis: the axis of a site's output (B, …) that it stands for, by the number of the output's dimensions.
        inputs: Makes the inputs.
        left_out: Sites that are left out, as they do not see the input or are the output.
        response: Function of the output that is explained; the logit of the predicted class if None.
        tolerance: Largest difference, relative to a site's largest value.
        slow: True if it takes more than a few seconds.
    """

    build: Callable[[], nn.Module]
    sites: Any = "relu"
    functions: tuple[str, ...] = ()
    classes: Mapping[str, str] = field(default_factory=dict)
    unit: str | cpath.Units = "channel"
    axis: Mapping[int, int] = field(default_factory=lambda: {4: 1, 3: 2, 2: 1})
    inputs: Callable[[], Any] = lambda: pixels(32)
    left_out: tuple[str, ...] = ()
    response: Callable[[Any], Tensor] | None = None
    tolerance: float = 1e-9
    slow: bool = False


CHANNELS_LAST: dict[str, Any] = {"unit": cpath.Units("channel", axis=-1), "axis": {4: 3, 3: 2, 2: 1}}
HEADS: dict[str, Any] = {"sites": "attention", "functions": ("attention",), "unit": "head", "axis": {4: 1}}
TOKENS: dict[str, Any] = {"unit": "token", "axis": {3: 1}}


def by(*functions: str) -> dict[str, Any]:
    """The sites are the calls of these functions, which torch.nn.functional has."""
    return {"sites": functions, "functions": functions}


def of(name: str, suffix: str = "", sites: str | None = None) -> dict[str, Any]:
    """The sites are the modules of a class."""
    return {"sites": sites or name, "classes": {name: suffix}}


def pixels(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def named_pixels() -> dict[str, Tensor]:
    return {"pixel_values": pixels(16)}


def token_ids() -> dict[str, Tensor]:
    ids = torch.randint(3, 30, (2, 6), generator=torch.Generator().manual_seed(4))
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    return {"input_ids": torch.where(mask == 1, ids, 0), "attention_mask": mask}


def lively(model: nn.Module) -> nn.Module:
    """Give a network random weights that let every site matter, statistics that are not the identity, float64."""
    generator = torch.Generator().manual_seed(5)
    model = model.double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5, generator=generator)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.2, generator=generator)
            else:
                parameter.uniform_(0.5, 1.5, generator=generator)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.2, generator=generator)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5, generator=generator)
    return model


# torchvision


def with_a_small_head(build: Callable[..., nn.Module], features: int) -> nn.Module:
    """AlexNet and VGG have layers of 4096 neurons, which are never made."""
    with torch.device("meta"):
        model = build(num_classes=CLASSES)
        layers = [nn.Linear(features, 12), nn.ReLU(True), nn.Linear(12, 12), nn.ReLU(True), nn.Linear(12, CLASSES)]
        model.classifier = nn.Sequential(nn.Dropout(), *layers)
    return model.to_empty(device="cpu")


def vgg11(num_classes: int) -> nn.Module:
    layers = vgg.make_layers([8, "M", 12, "M", 16, 16, "M", 16, 16, "M"])
    return tv.VGG(layers, num_classes=num_classes, init_weights=False)


def narrow(block: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Make the convolutions of an Inception network with an eighth of their channels."""

    def convolution(before: int, after: int, **settings: Any) -> nn.Module:
        return block(before if before == 3 else before // 8, after // 8, **settings)

    return convolution


def google_net() -> nn.Module:
    convolution = narrow(googlenet.BasicConv2d)
    blocks = [convolution, partial(googlenet.Inception, conv_block=convolution), googlenet.InceptionAux]
    model = tv.GoogLeNet(CLASSES, aux_logits=False, init_weights=False, blocks=blocks)
    model.fc = nn.Linear(1024 // 8, CLASSES)
    return model


def inception_v3() -> nn.Module:
    convolution = narrow(inception.BasicConv2d)
    kinds = [getattr(inception, f"Inception{kind}") for kind in "ABCDE"]
    blocks = [convolution, *(partial(kind, conv_block=convolution) for kind in kinds), inception.InceptionAux]
    model = tv.Inception3(CLASSES, aux_logits=False, init_weights=False, inception_blocks=blocks)
    model.fc = nn.Linear(2048 // 8, CLASSES)
    return model


def mobilenet_v3() -> nn.Module:
    block = partial(mobilenetv3.InvertedResidualConfig, width_mult=1.0)
    settings = [block(8, 3, 8, 8, True, "RE", 2, 1), block(8, 5, 24, 16, True, "HS", 1, 1)]
    return tv.MobileNetV3(settings, last_channel=16, num_classes=CLASSES)


def regnet_y() -> nn.Module:
    blocks = regnet.BlockParams.from_init_params(4, 8, 8.0, 2.0, 8, se_ratio=0.25)
    return tv.RegNet(blocks, stem_width=8, num_classes=CLASSES)


def efficientnet_b() -> nn.Module:
    block = partial(efficientnet.MBConvConfig, num_layers=1)
    settings = [block(1, 3, 1, 8, 8), block(4, 3, 2, 8, 12)]
    return tv.EfficientNet(settings, 0.2, last_channel=16, num_classes=CLASSES)


def convnext_t() -> nn.Module:
    settings = [convnext.CNBlockConfig(8, 12, 1), convnext.CNBlockConfig(12, None, 1)]
    return tv.ConvNeXt(settings, num_classes=CLASSES)


def swin(**kind: Any) -> nn.Module:
    return tv.SwinTransformer(
        patch_size=[4, 4],
        embed_dim=8,
        depths=[2, 1],
        num_heads=[2, 2],
        window_size=[4, 4],
        num_classes=CLASSES,
        **kind,
    )


def swin_v2() -> nn.Module:
    return swin(block=swin_transformer.SwinTransformerBlockV2, downsample_layer=swin_transformer.PatchMergingV2)


def maxvit() -> nn.Module:
    return tv.MaxVit((32, 32), 8, 2, [8, 12], [1, 1], 4, 0.0, num_classes=CLASSES)


def vit_b() -> nn.Module:
    return tv.VisionTransformer(32, 16, 2, 3, 12, 20, num_classes=CLASSES)


RELU = by("relu")
GELU = by("gelu")

TORCHVISION = {
    "alexnet": Architecture(lambda: with_a_small_head(tv.alexnet, 256 * 36), **RELU, inputs=lambda: pixels(64)),
    "vgg11": Architecture(lambda: with_a_small_head(vgg11, 16 * 49), **RELU),
    "squeezenet1_1": Architecture(
        lambda: tv.squeezenet1_1(num_classes=CLASSES), **RELU, left_out=("classifier.2",)
    ),
    "resnet18": Architecture(
        lambda: tv.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=CLASSES), **RELU, unit="neuron", axis={}
    ),
    "resnet50": Architecture(
        lambda: tv.ResNet(resnet.Bottleneck, [1, 1, 1, 1], num_classes=CLASSES, width_per_group=16), **RELU
    ),
    "densenet121": Architecture(lambda: densenet.DenseNet(4, (2, 2), 8, num_classes=CLASSES), **RELU),
    "googlenet": Architecture(google_net, **RELU),
    "inception_v3": Architecture(inception_v3, **RELU, inputs=lambda: pixels(75), slow=True),
    "mobilenet_v2": Architecture(
        lambda: tv.MobileNetV2(CLASSES, 0.25, [[1, 16, 1, 1], [6, 24, 2, 2]]), **by("relu6")
    ),
    "mobilenet_v3": Architecture(mobilenet_v3, **by("relu", "hardswish")),
    "shufflenet_v2": Architecture(
        lambda: tv.ShuffleNetV2([2, 1, 1], [8, 16, 24, 32, 24], num_classes=CLASSES), **RELU
    ),
    "mnasnet": Architecture(lambda: tv.MNASNet(0.1, CLASSES), **RELU, unit="neuron", axis={}),
    "regnet_y": Architecture(regnet_y, **RELU),
    "efficientnet": Architecture(efficientnet_b, **by("silu", "sigmoid")),
    "convnext": Architecture(convnext_t, **GELU, **CHANNELS_LAST),
    "swin": Architecture(swin, **GELU, **CHANNELS_LAST),
    "swin_v2": Architecture(
        swin_v2,
        **by("gelu", "relu"),
        **CHANNELS_LAST,
        left_out=tuple(f"features.{block}.attn.cpb_mlp.1" for block in ("1.0", "1.1", "3.0")),
    ),
    "maxvit": Architecture(maxvit, **GELU, unit="neuron", axis={}),
    "vit_b, neurons": Architecture(vit_b, **GELU),
    "vit_b, heads": Architecture(vit_b, **HEADS),
}


# timm


def timm(module: str, name: str, **arguments: Any) -> Callable[[], nn.Module]:
    """A network of timm by its class; arguments that are text are names of classes beside it."""

    def build() -> nn.Module:
        pytest.importorskip("timm")
        found = import_module(f"timm.models.{module}")
        given = {
            key: getattr(found, value) if isinstance(value, str) else value for key, value in arguments.items()
        }
        model: nn.Module = getattr(found, name)(num_classes=CLASSES, **given)
        return model

    return build


SMALL: dict[str, Any] = {"img_size": 16, "patch_size": 8, "embed_dim": 12}
STAGES: dict[str, Any] = {"depths": (1, 1), "dims": (8, 12), "use_mlp_head": False}
vit = partial(timm, "vision_transformer", **SMALL, depth=2, num_heads=3)
mixer = partial(timm, "mlp_mixer", "MlpMixer", **SMALL, num_blocks=2)

TIMM = {
    "timm's vit, heads": Architecture(vit("VisionTransformer"), **HEADS, inputs=lambda: pixels(16)),
    "timm's vit, tokens": Architecture(vit("VisionTransformer"), **GELU, **TOKENS, inputs=lambda: pixels(16)),
    "timm's deit, distilled": Architecture(
        timm("deit", "VisionTransformerDistilled", **SMALL, depth=2, num_heads=3),
        **HEADS,
        inputs=lambda: pixels(16),
    ),
    "mixer": Architecture(mixer(), **GELU, unit="neuron", axis={}, inputs=lambda: pixels(16)),
    "resmlp": Architecture(
        mixer(mlp_ratio=4, block_layer="ResBlock", norm_layer="Affine"), **GELU, inputs=lambda: pixels(16)
    ),
    "gmlp": Architecture(
        mixer(mlp_ratio=6, block_layer="SpatialGatingBlock", mlp_layer="GatedMlp"),
        **GELU,
        inputs=lambda: pixels(16),
    ),
    "poolformer": Architecture(
        timm("metaformer", "MetaFormer", **STAGES, mlp_act=nn.GELU, norm_layers="GroupNorm1"), **GELU
    ),
    "poolformer v2": Architecture(timm("metaformer", "MetaFormer", **STAGES), **RELU),
    "convmixer": Architecture(timm("convmixer", "ConvMixer", dim=12, depth=2, kernel_size=3, patch_size=4), **GELU),
    "efficientvit": Architecture(
        timm(
            "efficientvit_mit",
            "EfficientVit",
            widths=(8, 8, 16),
            depths=(1, 1, 1),
            head_dim=8,
            head_widths=(16, 16),
        ),
        **by("hardswish"),
    ),
    "levit": Architecture(
        timm("levit", "Levit", img_size=32, embed_dim=(16, 24), key_dim=8, depth=(1, 1), num_heads=(2, 2)),
        **by("hardswish"),
        unit="neuron",
        axis={},
    ),
    "eva": Architecture(
        timm("eva", "Eva", **SMALL, depth=2, num_heads=3, use_rot_pos_emb=True, swiglu_mlp=True),
        **by("silu", "attention"),
        unit="token",
        axis={3: 1, 4: 2},
        inputs=lambda: pixels(16),
    ),
    "cait": Architecture(timm("cait", "Cait", **SMALL, depth=2, num_heads=3), **GELU, inputs=lambda: pixels(16)),
    "pit": Architecture(
        timm(
            "pit",
            "PoolingVisionTransformer",
            img_size=32,
            patch_size=8,
            stride=8,
            base_dims=(4, 4),
            depth=(1, 1),
            heads=(2, 2),
            mlp_ratio=2,
        ),
        **GELU,
    ),
    "beit": Architecture(
        timm("beit", "Beit", **SMALL, depth=2, num_heads=3, use_rel_pos_bias=True),
        **HEADS,
        inputs=lambda: pixels(16),
    ),
    "tf_efficientnet_lite0": Architecture(timm("efficientnet", "tf_efficientnet_lite0"), **by("relu6"), slow=True),
}


# transformers


def hugging_face(config: str, model: str, **settings: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        transformers = pytest.importorskip("transformers")
        made = getattr(transformers, config)(**settings)
        network: nn.Module = getattr(transformers, model)(made)
        return network

    return build


TEXT: dict[str, Any] = {
    "vocab_size": 30,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "num_labels": CLASSES,
}
SPECIAL: dict[str, Any] = {
    f"{kind}_token_id": number for number, kind in enumerate(("pad", "bos", "eos", "cls", "sep"))
}
IMAGE: dict[str, Any] = {**TEXT, "image_size": 16, "patch_size": 8}
bert = hugging_face("BertConfig", "BertForSequenceClassification", **TEXT)
gpt2 = hugging_face(
    "GPT2Config",
    "GPT2ForSequenceClassification",
    n_embd=12,
    n_layer=2,
    n_head=3,
    vocab_size=30,
    num_labels=CLASSES,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
t5 = hugging_face(
    "T5Config", "T5EncoderModel", vocab_size=30, d_model=12, d_kv=4, d_ff=20, num_layers=2, num_heads=3
)
llama = hugging_face("LlamaConfig", "LlamaForSequenceClassification", **{**TEXT, "hidden_size": 24}, pad_token_id=0)
ROOT_MEAN_SQUARE: dict[str, Any] = {"inputs": token_ids, "tolerance": 1e-5}
"""Their normalisation computes in float32."""


def t5_with_heads() -> nn.Module:
    """T5 where its attention is one call; transformers 5.0 has it written out."""
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 30, "d_model": 12, "d_kv": 4, "d_ff": 20, "num_layers": 2, "num_heads": 3}
    try:
        network: nn.Module = transformers.T5EncoderModel(transformers.T5Config(**sizes, attn_implementation="sdpa"))
    except ValueError as error:
        pytest.skip(str(error))
    return network


T5: dict[str, Any] = {**ROOT_MEAN_SQUARE, "response": lambda output: output.last_hidden_state[:, 0, 1]}
OF_GELU = of("GELUActivation", ":gelu", "gelu")

TRANSFORMERS = {
    "bert, neurons": Architecture(bert, **OF_GELU, inputs=token_ids),
    "bert, heads": Architecture(bert, **HEADS, inputs=token_ids),
    "distilbert": Architecture(
        hugging_face(
            "DistilBertConfig",
            "DistilBertForSequenceClassification",
            dim=12,
            n_layers=2,
            n_heads=3,
            hidden_dim=20,
            vocab_size=30,
            num_labels=CLASSES,
        ),
        **OF_GELU,
        **TOKENS,
        inputs=token_ids,
    ),
    "roberta": Architecture(
        hugging_face("RobertaConfig", "RobertaForSequenceClassification", **TEXT, pad_token_id=0),
        **of("GELUActivation"),
        inputs=token_ids,
    ),
    "electra": Architecture(
        hugging_face("ElectraConfig", "ElectraForSequenceClassification", **TEXT, embedding_size=8),
        **OF_GELU,
        inputs=token_ids,
    ),
    "deberta": Architecture(  # its pooler makes an activation module of its own at each call
        hugging_face("DebertaV2Config", "DebertaV2ForSequenceClassification", **TEXT),
        sites="gelu",
        functions=("gelu",),
        classes={"GELUActivation": ":gelu"},
        axis={3: 2, 2: 1},
        inputs=token_ids,
    ),
    "modernbert": Architecture(
        hugging_face("ModernBertConfig", "ModernBertForSequenceClassification", **TEXT, **SPECIAL),
        **HEADS,
        inputs=token_ids,
    ),
    "layers of bert": Architecture(bert, **of("BertLayer"), **TOKENS, inputs=token_ids),
    "albert": Architecture(
        hugging_face("AlbertConfig", "AlbertForSequenceClassification", **TEXT, embedding_size=8),
        **of("NewGELUActivation"),
        inputs=token_ids,
    ),
    "gpt2, neurons": Architecture(
        gpt2, **of("NewGELUActivation", sites="transformer.h.*.mlp.act"), inputs=token_ids
    ),
    "gpt2, heads": Architecture(gpt2, **HEADS, inputs=token_ids),
    "opt": Architecture(
        hugging_face(
            "OPTConfig",
            "OPTForSequenceClassification",
            vocab_size=30,
            hidden_size=12,
            word_embed_proj_dim=12,
            num_hidden_layers=2,
            num_attention_heads=3,
            ffn_dim=20,
            max_position_embeddings=16,
            num_labels=CLASSES,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
        **HEADS,
        inputs=token_ids,
    ),
    "gpt neox": Architecture(
        hugging_face("GPTNeoXConfig", "GPTNeoXForSequenceClassification", **TEXT, pad_token_id=0),
        **OF_GELU,
        inputs=token_ids,
    ),
    "llama, neurons": Architecture(llama, **of("SiLUActivation", ":silu", "silu"), **ROOT_MEAN_SQUARE),
    "llama, heads": Architecture(llama, **HEADS, **ROOT_MEAN_SQUARE),
    "bart": Architecture(
        hugging_face(
            "BartConfig",
            "BartForSequenceClassification",
            vocab_size=30,
            d_model=12,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=3,
            decoder_attention_heads=3,
            encoder_ffn_dim=20,
            decoder_ffn_dim=20,
            num_labels=CLASSES,
            pad_token_id=0,
            eos_token_id=2,
        ),
        **by("attention"),
        unit="head",
        axis={4: 1},
        inputs=lambda: {"input_ids": torch.tensor([[5, 6, 7, 2], [8, 9, 4, 2]])},
    ),
    "t5 encoder, neurons": Architecture(t5, **RELU, **T5),
    "t5 encoder, heads": Architecture(t5_with_heads, **HEADS, **T5),
    "hugging face's vit": Architecture(
        hugging_face("ViTConfig", "ViTForImageClassification", **IMAGE), **HEADS, inputs=named_pixels
    ),
    "hugging face's deit": Architecture(
        hugging_face("DeiTConfig", "DeiTForImageClassification", **IMAGE), **OF_GELU, inputs=named_pixels
    ),
    "hugging face's swin": Architecture(
        hugging_face(
            "SwinConfig",
            "SwinForImageClassification",
            image_size=16,
            patch_size=2,
            embed_dim=8,
            depths=[1, 1],
            num_heads=[2, 2],
            window_size=4,
            num_labels=CLASSES,
        ),
        **OF_GELU,
        inputs=named_pixels,
    ),
    "hugging face's convnext": Architecture(
        hugging_face(
            "ConvNextConfig",
            "ConvNextForImageClassification",
            hidden_sizes=[8, 8, 8, 8],
            depths=[1, 1, 1, 1],
            num_labels=CLASSES,
        ),
        **OF_GELU,
        **CHANNELS_LAST,
        inputs=lambda: {"pixel_values": pixels(32)},
    ),
    "hugging face's resnet": Architecture(
        hugging_face(
            "ResNetConfig",
            "ResNetForImageClassification",
            embedding_size=8,
            hidden_sizes=[8, 12],
            depths=[1, 1],
            layer_type="basic",
            num_labels=CLASSES,
        ),
        **RELU,
        inputs=named_pixels,
    ),
}

REFUSING = {
    "mobilevit": Architecture(
        lambda: pytest.importorskip("timm").create_model("mobilevit_xxs", num_classes=CLASSES)
    ),
}
"""Networks of which some sites can be none."""
ARCHITECTURES = {**TORCHVISION, **TIMM, **TRANSFORMERS}
