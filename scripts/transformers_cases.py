"""The models of `transformers_models.py`: small configurations of the transformers library, never a download."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

os.environ["HF_HUB_OFFLINE"] = "1"

import transformers as hf
from torch import nn

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A model: how to build it, the shapes of its inputs without the batch, and the outputs to keep.

    `stay` BatchNorms cannot be folded, in an export that leaves all of them: `why` says so in words. `without` names
    the exporters that cannot export it, and why.
    """

    build: Callable[[], nn.Module]
    inputs: Mapping[str, Shape]
    outputs: tuple[str, ...] = ("logits",)
    stay: int = 0
    why: str = ""
    without: Mapping[str, str] = field(default_factory=dict)


def image(size: int = 64) -> dict[str, Shape]:
    return {"pixel_values": (3, size, size)}


_STAGES = {"embedding_size": 8, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 2, 2, 1]}
_LAYERS = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
_SPEECH = (
    _LAYERS
    | {"conv_dim": (16, 16, 16), "conv_stride": (5, 2, 2), "conv_kernel": (10, 3, 3), "vocab_size": 20}
    | {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
)
_PYRAMID = {"hidden_sizes": [16, 16, 32, 32], "num_attention_heads": [1, 1, 2, 2], "depths": [1, 1, 1, 1]}
_DETECTOR = {"d_model": 32, "encoder_layers": 1, "encoder_ffn_dim": 48, "encoder_attention_heads": 2} | {
    "decoder_layers": 1,
    "decoder_ffn_dim": 48,
    "decoder_attention_heads": 2,
    "num_queries": 5,
}


def levit() -> nn.Module:
    sizes = {"hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 3, 4], "depths": [2, 2, 2], "key_dim": [8, 8, 8]}
    return hf.LevitForImageClassificationWithTeacher(hf.LevitConfig(image_size=64, **sizes))


def efficientnet() -> nn.Module:
    stages = {"in_channels": [32, 16, 24, 40], "out_channels": [16, 24, 40, 80], "kernel_sizes": [3, 3, 5, 3]}
    depths = {"strides": [1, 2, 2, 2], "num_block_repeats": [1, 2, 2, 3], "expand_ratios": [1, 6, 6, 6]}
    config = hf.EfficientNetConfig(
        image_size=64, width_coefficient=0.25, depth_coefficient=0.5, hidden_dim=320, **stages, **depths
    )
    return hf.EfficientNetForImageClassification(config)


def cvt() -> nn.Module:
    config = hf.CvtConfig(embed_dim=[16, 32, 48], num_heads=[1, 2, 3], depth=[1, 2, 3], drop_path_rate=[0.0, 0.0, 0.0])
    return hf.CvtForImageClassification(config)


def groupvit() -> nn.Module:
    text = {"vocab_size": 100, "max_position_embeddings": 16, "eos_token_id": 99}
    groups = {"depths": [1, 1, 1], "num_group_tokens": [8, 4, 0], "num_output_groups": [8, 4, 4]}
    config = hf.GroupViTConfig(
        text_config=_LAYERS | text,
        vision_config=_LAYERS | groups | {"image_size": 64, "patch_size": 16},
        projection_dim=24,
        projection_intermediate_dim=48,
    )
    return hf.GroupViTModel(config)


def textnet() -> nn.Module:
    config = hf.TextNetConfig(
        image_size=[64, 64],
        stem_out_channels=16,
        hidden_sizes=[16, 16, 24, 32, 48],
        conv_layer_kernel_sizes=[[[3, 3], [3, 3]], [[3, 3], [3, 1]], [[3, 3], [1, 3]], [[3, 3]]],
        conv_layer_strides=[[1, 1], [2, 1], [2, 1], [2]],
    )
    return hf.TextNetForImageClassification(config)


def patchtst() -> nn.Module:
    layers = {"d_model": 16, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    patches = {"num_input_channels": 3, "context_length": 32, "patch_length": 8, "patch_stride": 4}
    return hf.PatchTSTForPrediction(hf.PatchTSTConfig(prediction_length=8, **layers, **patches))


def detr() -> nn.Module:
    stages = _STAGES | {"depths": [1, 1, 1, 1]}
    backbone = hf.ResNetConfig(out_features=["stage4"], **stages)
    return hf.DetrForObjectDetection(hf.DetrConfig(backbone_config=backbone, **_DETECTOR))


def rt_detr() -> nn.Module:
    stages = _STAGES | {"depths": [1, 1, 1, 1]}
    config = hf.RTDetrConfig(
        backbone_config=hf.RTDetrResNetConfig(out_features=["stage2", "stage3", "stage4"], **stages),
        freeze_backbone_batch_norms=False,
        encoder_in_channels=[32, 48, 64],
        encoder_hidden_dim=32,
        decoder_in_channels=[32, 32, 32],
        num_labels=4,
        **_DETECTOR,
    )
    return hf.RTDetrForObjectDetection(config)


def clap() -> nn.Module:
    sizes = {"patch_embeds_hidden_size": 16, "hidden_size": 32, "depths": [1, 1], "num_attention_heads": [2, 2]}
    return hf.ClapAudioModel(hf.ClapAudioConfig(spec_size=64, num_mel_bins=16, window_size=4, **sizes))


CASES = {
    "levit": Case(levit, image()),
    "mobilenet_v1": Case(
        lambda: hf.MobileNetV1ForImageClassification(hf.MobileNetV1Config(image_size=64, depth_multiplier=0.25)),
        image(),
    ),
    "mobilenet_v2": Case(
        lambda: hf.MobileNetV2ForSemanticSegmentation(
            hf.MobileNetV2Config(image_size=64, depth_multiplier=0.25, output_stride=8)
        ),
        image(),
    ),
    "efficientnet": Case(efficientnet, image()),
    "regnet": Case(lambda: hf.RegNetForImageClassification(hf.RegNetConfig(groups_width=8, **_STAGES)), image()),
    "resnet": Case(lambda: hf.ResNetForImageClassification(hf.ResNetConfig(**_STAGES)), image()),
    "wav2vec2_conformer": Case(
        lambda: hf.Wav2Vec2ConformerForCTC(
            hf.Wav2Vec2ConformerConfig(position_embeddings_type="rotary", conv_depthwise_kernel_size=7, **_SPEECH)
        ),
        {"input_values": (1600,)},
    ),
    "cvt": Case(cvt, image()),
    "segformer": Case(
        lambda: hf.SegformerForSemanticSegmentation(hf.SegformerConfig(decoder_hidden_size=32, **_PYRAMID)), image()
    ),
    "groupvit": Case(groupvit, {"input_ids": (12,), **image()}, ("logits_per_image",)),
    "swiftformer": Case(
        lambda: hf.SwiftFormerForImageClassification(
            hf.SwiftFormerConfig(image_size=64, depths=[1, 1, 2, 1], embed_dims=[16, 24, 32, 48])
        ),
        image(),
    ),
    "patchtst": Case(
        patchtst,
        {"past_values": (32, 3)},
        ("prediction_outputs",),
        without={"torchscript": "writes `unfold` with its axes in another order, so that shapes do not fit"},
    ),
    "detr": Case(detr, image(), ("logits", "pred_boxes")),
    "rt_detr": Case(rt_detr, image(), ("logits", "pred_boxes")),
    "textnet": Case(
        textnet, image(), stay=4, why="identity branches: the value is read by the convolutions beside them too"
    ),
    "hubert": Case(
        lambda: hf.HubertForCTC(hf.HubertConfig(conv_pos_batch_norm=True, **_SPEECH)),
        {"input_values": (1600,)},
        stay=1,
        why="between a residual connection and a convolution that pads with zeros",
    ),
    "clap": Case(
        clap,
        {"input_features": (1, 256, 16)},
        ("last_hidden_state",),
        stay=1,
        why="normalises the mel bins of the input, which the first convolution sees as space",
    ),
}
