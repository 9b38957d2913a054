// paint MODEL IN.ppm OUT.ppm: the smallest program around paint(). An app has its pixels from a bitmap instead.
#include <cstdlib>
#include <fstream>
#include <iostream>

#include "picture.hpp"

static Picture read_ppm(const char* path) {
  std::ifstream file(path, std::ios::binary);
  std::string kind;
  Picture picture;
  int brightest = 0;
  if (!(file >> kind >> picture.width >> picture.height >> brightest) || kind != "P6" || brightest != 255)
    throw std::runtime_error(std::string(path) + " is no PPM picture of 8 bits");
  file.get();  // the one white space before the pixels
  picture.rgb.resize(picture.height * picture.width * 3);
  if (!file.read(reinterpret_cast<char*>(picture.rgb.data()), static_cast<std::streamsize>(picture.rgb.size())))
    throw std::runtime_error(std::string(path) + " ends early");
  return picture;
}

static void write_ppm(const char* path, const Picture& picture) {
  std::ofstream file(path, std::ios::binary);
  file << "P6\n" << picture.width << ' ' << picture.height << "\n255\n";
  file.write(reinterpret_cast<const char*>(picture.rgb.data()), static_cast<std::streamsize>(picture.rgb.size()));
  if (!file) throw std::runtime_error(std::string("cannot write ") + path);
}

int main(int count, char** words) try {
  if (count != 4) throw std::runtime_error("usage: paint MODEL IN.ppm OUT.ppm");
  write_ppm(words[3], paint(words[1], read_ppm(words[2])));
  return EXIT_SUCCESS;
} catch (const std::exception& error) {
  std::cerr << "paint: " << error.what() << '\n';
  return EXIT_FAILURE;
}
