// Pixels of a Bitmap to a network's input, and its output back to pixels, as the file's own metadata say.
package com.example.painter

import kotlin.math.roundToInt

/** What the metadata of a file say about feeding it: input_layout, input_range and output_range, as they stand there. */
class Feeding(layout: String, inputRange: String, outputRange: String) {
    private val channelsFirst = layout == "NCHW" // .onnx files; .tflite files are NHWC
    private val input = ends(inputRange)
    private val output = ends(outputRange)

    /** ARGB pixels, as Bitmap.getPixels gives them: input = byte / 255 * (white - black) + black. */
    fun toInput(pixels: IntArray): FloatArray {
        val (black, white) = input
        val values = FloatArray(pixels.size * 3)
        for (p in pixels.indices) {
            for (c in 0 until 3) { // red, green, blue
                val byte = (pixels[p] shr (16 - 8 * c)) and 0xff
                values[place(p, c, pixels.size)] = byte / 255f * (white - black) + black
            }
        }
        return values
    }

    /** Opaque ARGB pixels: byte = round(clip((output - black) / (white - black), 0, 1) * 255). */
    fun toPixels(values: FloatArray): IntArray {
        val (black, white) = output
        val count = values.size / 3
        return IntArray(count) { p ->
            (0 until 3).fold(0xff) { pixel, c ->
                val share = (values[place(p, c, count)] - black) / (white - black)
                (pixel shl 8) or (share.coerceIn(0f, 1f) * 255).roundToInt()
            }
        }
    }

    /** Where a tensor of this layout holds channel c of pixel p, of all the picture's pixels. */
    private fun place(p: Int, c: Int, pixels: Int) = if (channelsFirst) c * pixels + p else p * 3 + c

    private fun ends(range: String): Pair<Float, Float> {
        val (black, white) = range.trim('[', ']').split(',').map { it.trim().toFloat() }
        return black to white
    }
}
