// Bytes of a picture to a network's input, and its output back to bytes, as the file's own metadata say.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

// RGB bytes, row after row.
struct Picture {
  std::size_t height = 0, width = 0;
  std::vector<std::uint8_t> rgb;
};

// What the metadata of a file say about feeding it.
struct Feeding {
  bool channels_first = false;  // input_layout: NCHW in .onnx files, NHWC in .tflite files
  float in_black = 0, in_white = 1;    // input_range
  float out_black = 0, out_white = 1;  // output_range

  Feeding(const std::string& layout, const std::string& input_range, const std::string& output_range)
      : channels_first(layout == "NCHW") {
    if (std::sscanf(input_range.c_str(), "[%f, %f]", &in_black, &in_white) != 2 ||
        std::sscanf(output_range.c_str(), "[%f, %f]", &out_black, &out_white) != 2)
      throw std::runtime_error("the file does not say how to feed it");
  }

  // Where a tensor of this layout holds channel c of pixel number p, of all the picture's pixels.
  std::size_t place(std::size_t p, std::size_t c, std::size_t pixels) const {
    return channels_first ? c * pixels + p : p * 3 + c;
  }

  // input = byte / 255 * (white - black) + black
  void to_input(const Picture& picture, float* values) const {
    const std::size_t pixels = picture.height * picture.width;
    for (std::size_t p = 0; p < pixels; p++)
      for (std::size_t c = 0; c < 3; c++)
        values[place(p, c, pixels)] = picture.rgb[p * 3 + c] / 255.0f * (in_white - in_black) + in_black;
  }

  // byte = round(clip((output - black) / (white - black), 0, 1) * 255)
  Picture to_picture(const float* values, std::size_t height, std::size_t width) const {
    const std::size_t pixels = height * width;
    Picture made{height, width, std::vector<std::uint8_t>(pixels * 3)};
    for (std::size_t p = 0; p < pixels; p++)
      for (std::size_t c = 0; c < 3; c++) {
        const float share = (values[place(p, c, pixels)] - out_black) / (out_white - out_black);
        made.rgb[p * 3 + c] = static_cast<std::uint8_t>(std::lround(std::clamp(share, 0.0f, 1.0f) * 255));
      }
    return made;
  }
};

// One inference with the file at `model`, whose height and width the picture must have.
Picture paint(const std::string& model, const Picture& picture);
