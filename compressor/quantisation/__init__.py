"""INT8 as training and export both see it: which layers, over which ranges, rounded how.

`compressor` trains with it (fake quantisation), `exporters` plans and writes files with it. Importing this
package is cheap: torch comes in with the modules that touch tensors.
"""
