// An .onnx file in ONNX Runtime: implementation("com.microsoft.onnxruntime:onnxruntime-android:1.22.0"), or newer
package com.example.painter

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import android.graphics.Bitmap
import java.nio.FloatBuffer

/** Paints pictures; [file] holds the bytes of an .onnx file, such as `assets.open(name).readBytes()`. */
class OrtPainter(file: ByteArray) : AutoCloseable {
    private val environment = OrtEnvironment.getEnvironment()
    private val session = environment.createSession(file, OrtSession.SessionOptions().apply { setIntraOpNumThreads(2) })
    private val how = session.metadata.customMetadata.let { said ->
        Feeding(said.getValue("input_layout"), said.getValue("input_range"), said.getValue("output_range"))
    }

    fun paint(picture: Bitmap): Bitmap {
        val pixels = IntArray(picture.width * picture.height)
        picture.getPixels(pixels, 0, picture.width, 0, 0, picture.width, picture.height)
        val shape = longArrayOf(1, 3, picture.height.toLong(), picture.width.toLong())
        OnnxTensor.createTensor(environment, FloatBuffer.wrap(how.toInput(pixels)), shape).use { input ->
            session.run(mapOf(session.inputNames.first() to input)).use { result ->
                val output = result[0] as OnnxTensor // (1, 3, height, width)
                val (_, _, height, width) = output.info.shape
                val values = FloatArray((3 * height * width).toInt())
                output.floatBuffer.get(values)
                val painted = how.toPixels(values)
                return Bitmap.createBitmap(painted, width.toInt(), height.toInt(), Bitmap.Config.ARGB_8888)
            }
        }
    }

    override fun close() = session.close()
}
