"""SCP-Diff for ComfyUI: start the sampler from a segmentation map (arXiv 2403.09638)."""

# Guarded, because test runners import the file by its path, outside any package.
if __package__:
    from .nodes import comfy_entrypoint

    WEB_DIRECTORY = "./web"

    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
