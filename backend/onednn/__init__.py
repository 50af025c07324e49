# SPDX-License-Identifier: Apache-2.0
"""Fast convolutional layers for NNabla's cpu context, on oneDNN, the library under PyTorch's CPU convolutions.

NNabla's own CPU convolution is single-threaded SSE. oneDNN is a plain C library without dependencies, which the
package `onednn-cpu-gomp` puts into the environment's `lib`; it is called through ctypes. From the bottom up:

    library          the C calls and constants
    threads          how many threads compute; two tasks side by side, and the locks that they need
    memory           scratch memory, and the layouts of tensors
    primitives       oneDNN's primitives, and copies from one layout into another
    convolution      convolution and deconvolution, with their gradients
    pointwise        reflection padding, instance normalization, activations
    layer            a whole layer, made of these, on addresses
    python_function  NNabla's Python function, with access to its arrays by address
    functions        the layer as an NNabla function
    spectral, adam   spectral normalization, and the Adam solver, on all threads

oneDNN is fastest in blocked layouts (channels in groups of 8 or 16), so layers hand these to each other: in variables
of the shape NCHW that only another layer, or `functions.unblock`, may read. `backend.layers.Blocked` sees to that.

Only backend may import it. It imports nothing of ours from outside this folder.
"""
