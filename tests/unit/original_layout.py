"""Writes a model of diffusers' layout as one file in SDXL's original layout: the way back from what diffusers does."""

import re

import torch
from safetensors.torch import load_file, save_file

_UNET_TOPS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP = {
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def _weights(folder):
    (path,) = folder.glob("*.safetensors")
    return load_file(path)


def _replaced(key, names):
    found = next((name for name in names if key.startswith(name + ".")), None)
    return key if found is None else names[found] + key.removeprefix(found)


def unet_tensors(folder):
    tensors = _weights(folder)
    attends = {int(key.split(".")[1]) for key in tensors if re.match(r"up_blocks\.\d+\.attentions", key)}
    return {f"model.diffusion_model.{_unet_key(key, attends)}": tensor for key, tensor in tensors.items()}


def _unet_key(key, attends):
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", key)
    if not match:
        top = _replaced(key, _UNET_TOPS)
        block = re.fullmatch(r"(middle_block\.[02])\.(.+)", top)
        return f"{block[1]}.{_replaced(block[2], _UNET_RESNET)}" if block else top
    way, block, kind, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    if kind == "downsamplers":
        return f"input_blocks.{3 * (block + 1)}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{3 * block + 2}.{2 if block in attends else 1}.{rest}"
    place = f"input_blocks.{1 + 3 * block + index}" if way == "down" else f"output_blocks.{3 * block + index}"
    return f"{place}.0.{_replaced(rest, _UNET_RESNET)}" if kind == "resnets" else f"{place}.1.{rest}"


def vae_tensors(folder, prefix="first_stage_model."):
    tensors = _weights(folder)
    last = max(int(key.split(".")[2]) for key in tensors if key.startswith("decoder.up_blocks"))
    return {f"{prefix}{_vae_key(key, last)}": _as_convolution(key, tensor) for key, tensor in tensors.items()}


def _as_convolution(key, tensor):
    is_linear = ".attentions." in key and tensor.ndim == 2
    return tensor[:, :, None, None].contiguous() if is_linear else tensor


def _vae_key(key, last):
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    key = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", key)
    key = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d+)\.resnets", lambda found: f"up.{last - int(found[1])}.block", key)
    key = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda found: f"up.{last - int(found[1])}.upsample", key)
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", key)
    head, attention, rest = key.partition("mid_block.attentions.0.")
    return f"{head}mid.attn_1.{_replaced(rest, _VAE_ATTENTION)}" if attention else key


def clip_tensors(folder):
    plain = {key.removeprefix("text_model."): tensor for key, tensor in _weights(folder).items()}
    return {f"conditioner.embedders.0.transformer.text_model.{key}": tensor for key, tensor in plain.items()}


def open_clip_tensors(folder, embedder):
    """With query, key and value in one matrix."""
    prefix = f"conditioner.embedders.{embedder}.model."
    plain = {key.removeprefix("text_model."): tensor for key, tensor in _weights(folder).items()}
    found = {f"{prefix}text_projection": plain.pop("text_projection.weight").T.contiguous()}
    found[f"{prefix}logit_scale"] = torch.tensor(4.6)  # the original files have it; nobody reads it
    for key, tensor in plain.items():
        layer = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", key)
        if not layer:
            found[prefix + _OPEN_CLIP[key]] = tensor
        elif not re.match(r"self_attn\.[qkv]_proj", layer[2]):
            found[f"{prefix}transformer.resblocks.{layer[1]}.{_replaced(layer[2], _OPEN_CLIP_LAYER)}"] = tensor
        elif layer[2].startswith("self_attn.q_proj"):
            parts = [plain[key.replace("q_proj", f"{name}_proj")] for name in "qkv"]
            name = f"{prefix}transformer.resblocks.{layer[1]}.attn.in_proj_{key.rsplit('.', 1)[1]}"
            found[name] = torch.cat(parts)
    return found


def base_tensors(base):
    return {
        **unet_tensors(base / "unet"),
        **clip_tensors(base / "text_encoder"),
        **open_clip_tensors(base / "text_encoder_2", embedder=1),
        **vae_tensors(base / "vae"),
    }


def refiner_tensors(refiner):
    return {
        **unet_tensors(refiner / "unet"),
        **open_clip_tensors(refiner / "text_encoder_2", embedder=0),
        **vae_tensors(refiner / "vae"),
    }


def write(tensors, path):
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, path)
    return path
