"""A class or region of a photo, replaced."""

from __future__ import annotations

import torch
from comfy.model_management import intermediate_device
from comfy_api.latest import io

from ..scp_prior.batches import repeated_index
from ..scp_prior.inpaint import check_photo, grown, inpainted, mask_for
from ..scp_prior.labels import check_image
from .compat import search_aliases
from .say import say
from .vae import require_image_vae, require_numbers
from .wires import CATEGORY


class SCPInpaintLatent(io.ComfyNode):
    """The photo outside a mask, the prior inside, and the host's noise mask over the inside."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCPInpaintLatent",
            display_name="SCP Inpaint Latent",
            category=CATEGORY,
            description=(
                "Replaces a class or region of a photo: the latent is the photo outside the mask and the prior inside, "
                "and only the inside is sampled. Put it between SCP Prior Latent and KSampler, with denoise and steps "
                "from SCP Denoise Start."
            ),
            inputs=[
                io.Latent.Input("latent", tooltip="From SCP Prior Latent, for a picture of the photo's size."),
                io.Image.Input("image", tooltip="The photo."),
                io.Vae.Input("vae", tooltip="Encodes the photo: the VAE of the model that samples."),
                io.Mask.Input(
                    "mask",
                    tooltip="White where the photo is to be replaced: from SCP Mask From Labels, or the mask editor. "
                    "More than half white counts; every latent cell it touches is replaced whole.",
                ),
                io.Int.Input(
                    "grow_mask_by",
                    default=6,
                    min=0,
                    max=256,
                    tooltip="How many pixels the mask grows to each side, so that nothing of what is replaced is left "
                    "at its edge.",
                ),
            ],
            outputs=[
                io.Latent.Output("LATENT", display_name="latent", tooltip="For KSampler's latent_image."),
            ],
            hidden=[io.Hidden.unique_id],
            **search_aliases("inpaint", "replace class", "noise mask", "vae encode for inpainting", "scp-diff"),
        )

    @classmethod
    def execute(cls, latent: dict, image: torch.Tensor, vae, mask: torch.Tensor, grow_mask_by: int) -> io.NodeOutput:
        prior = latent["samples"]
        require_image_vae(vae, prior.shape[1])
        check_image(image, "photo")
        photo_size, factor = tuple(image.shape[1:3]), vae.downscale_ratio
        check_photo(photo_size, tuple(prior.shape[-2:]), factor)
        marked = grown(mask_for(mask, photo_size), grow_mask_by)
        photo = vae.encode(image[..., :3])
        require_numbers(photo)

        made = inpainted(prior, photo.to(prior.device), marked.to(prior.device), factor)
        say(cls, f"{float(made.noise_mask.mean()):.1%} of the picture is replaced{_untouched(marked)}")
        device = intermediate_device()
        out = {**latent, "samples": made.samples.to(device), "noise_mask": made.noise_mask.to(device)}
        times = len(made.samples) // len(prior)
        if times > 1 and "batch_index" in latent:
            out["batch_index"] = repeated_index(latent["batch_index"], times)
        return io.NodeOutput(out)


def _untouched(marked: torch.Tensor) -> str:
    empty = [str(item + 1) for item, mask in enumerate(marked) if not bool(mask.any())]
    return f"\nnothing in mask {', '.join(empty)}: those pictures stay as they are" if empty else ""
