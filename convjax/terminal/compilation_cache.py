"""JAX's persistent compilation cache: a program is compiled once for all runs."""

import os

import jax

from convjax.data.cache import cache_folder

# Beyond this size the oldest programs are removed. One of the chapter's takes 0.1 to 0.3 MB.
MAX_BYTES = 512 << 20


def use_compilation_cache() -> None:
    """Makes JAX keep compiled programs on disk.

    The folder is `xla` in $CONVJAX_CACHE_DIR, or else in the user's cache folder for convjax.
    $JAX_COMPILATION_CACHE_DIR chooses another folder, and $JAX_ENABLE_COMPILATION_CACHE=0 turns the
    cache off. Where the folder cannot be written, there is no cache.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = cache_folder() / "xla"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return
        if not os.access(folder, os.W_OK):
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    # JAX's defaults exclude what compiles in less than a second: most of our programs.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
