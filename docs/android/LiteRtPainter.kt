// A .tflite file in LiteRT: implementation("com.google.ai.edge.litert:litert:2.3.0")
package com.example.painter

import android.content.res.AssetManager
import android.graphics.Bitmap
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel

/**
 * Paints pictures of the size that the file takes. LiteRT's Kotlin API does not give an app a file's metadata, so
 * [how] and [scale] are written into the app: `input_layout`, `input_range`, `output_range` and `scale`.
 */
class LiteRtPainter(assets: AssetManager, file: String, private val how: Feeding, private val scale: Int = 1) :
    AutoCloseable {
    private val model = CompiledModel.create(assets, file, CompiledModel.Options(Accelerator.CPU))
    private val inputs = model.createInputBuffers()
    private val outputs = model.createOutputBuffers()

    fun paint(picture: Bitmap): Bitmap {
        val pixels = IntArray(picture.width * picture.height)
        picture.getPixels(pixels, 0, picture.width, 0, 0, picture.width, picture.height)
        inputs[0].writeFloat(how.toInput(pixels))
        model.run(inputs, outputs)
        val painted = how.toPixels(outputs[0].readFloat())
        return Bitmap.createBitmap(painted, picture.width * scale, picture.height * scale, Bitmap.Config.ARGB_8888)
    }

    override fun close() {
        (inputs + outputs).forEach { it.close() }
        model.close()
    }
}
